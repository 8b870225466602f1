"""What every verb shares: where to print, how to fail, where things are kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, Protocol

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

__all__ = [
    "EXTRAS",
    "HOME",
    "STOPPED",
    "Home",
    "JsonFlag",
    "RedisUrl",
    "download_bar",
    "fail",
    "out",
    "print_json",
    "row_bar",
    "spare",
    "split_pair",
    "tell",
    "wants",
]

out = Console(highlight=False, emoji=False)
tell = Console(stderr=True, highlight=False, emoji=False)

HOME = Path(".rankd")
Home = Annotated[
    Path,
    typer.Option(
        "--home", envvar="RANKD_HOME", help="Folder that holds runs, bundles and the embedded store."
    ),
]
RedisUrl = Annotated[
    str | None,
    typer.Option(envvar="REDIS_URL", help="Feature store; default: the embedded Valkey in HOME/store."),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


class DownloadProgress(Protocol):
    """Told after each piece how far a download is."""

    def __call__(self, what: str, done_bytes: int, total_bytes: int) -> None:
        """`what` names the file."""


# The module that is missing, and the extra that brings it.
EXTRAS = {
    "torch": "training",
    "pyarrow": "training",
    "sklearn": "training",
    "safetensors": "training",
    "scipy": "training",
    "optuna": "tune",
    "lightgbm": "yardsticks",
    "mlflow": "mlflow",
    "cryptography": "signing",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "service",
    "fastapi": "service",
    "uvicorn": "service",
    "uvloop": "service",
    "httptools": "service",
    "redis": "service",
    "setproctitle": "service",
    "pydantic": "service",
    "pydantic_settings": "service",
    "prometheus_client": "service",
    "orjson": "service",
}
# What is no extra: too large, or it wants other versions.
_FILES = {"ray": "training/requirements-ray.txt"}


STOPPED = 128 + 2  # as shells say of a process that SIGINT ended


def fail(message: str, code: int = 1) -> NoReturn:
    """Say what went wrong and leave with an exit code."""
    tell.print(f"[bold red]error[/]: {escape(message)}", soft_wrap=True)
    raise typer.Exit(code)


def spare(option: str, path: Path | None, *read: Path | None) -> None:
    """Leave with a message where what is to be written is a file that is read, or would lie among such."""
    if path is None:
        return
    for other in read:
        if other is None or not other.exists():
            continue
        if path.exists() and path.samefile(other):
            fail(f"{option} {path}: is read by this command and would be lost; choose another name", 2)
        if other.is_dir() and path.resolve().is_relative_to(other.resolve()):
            fail(f"{option} {path}: lies in {other}, all of which is read; choose another place", 2)


def split_pair(option: str, pair: str, example: str) -> tuple[str, str]:
    """Cut a `key=value` that an option was given, or leave with what was expected."""
    key, equals, text = pair.partition("=")
    if not equals or not key:
        fail(f"{option} {pair}: expected key=value, such as {example}", 2)
    return key, text


@contextmanager
def wants(*errors: type[Exception]) -> Iterator[None]:
    """Turn expected errors into one line, and a missing extra into the command that installs it.

    What the machine refuses (a folder that may not be written, a full disk) is expected too, and Ctrl-C.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing in _FILES:
            fail(f"this needs {missing}, which is not installed; run: pip install -r {_FILES[missing]}")
        if missing not in EXTRAS:
            raise
        fail(f"this needs {missing}, which is not installed; run: pip install 'rankd[{EXTRAS[missing]}]'")
    except errors as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("stopped", STOPPED)
    except BrokenPipeError:  # whoever read our output has gone
        raise
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def print_json(tree: Any) -> None:
    """Print one JSON document for machines: without colours, whatever the environment asks for."""
    sys.stdout.write(json.dumps(tree, indent=2, default=str, ensure_ascii=False) + "\n")


@contextmanager
def download_bar() -> Iterator[DownloadProgress]:
    """Show bytes, speed and remaining time; yields what a download calls after each piece."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=tell, transient=True, disable=not tell.is_interactive
    ) as bar:
        task = bar.add_task("", total=None, visible=False)

        def show(what: str, done_bytes: int, total_bytes: int) -> None:
            bar.update(task, description=what, completed=done_bytes, total=total_bytes, visible=True)

        yield show


@contextmanager
def row_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many rows are done; yields what is called with rows done and rows in all (0 where unknown)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=tell, transient=True, disable=not tell.is_interactive) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)
