"""`rankd doctor`: what is missing on this machine, before anything fails for it.

Each check is a function that returns findings; what one of them meets must not keep the others from looking.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer
from rich.markup import escape

from rankd.cli.data import Root
from rankd.cli.screen import EXTRAS, HOME, Home, JsonFlag, RedisUrl, out, print_json

__all__ = ["Finding", "State", "doctor"]

_OLDEST_PYTHON = (3, 11)
_STORE_S = 2.0
_SKEW_S = 300.0  # features.clock_skew_s: rows dated later than that are not believed
_BUILT = datetime(2026, 1, 1, tzinfo=UTC)  # a clock before the code was written is wrong
_LOW_BYTES, _NEEDED_BYTES = 2 << 30, 200 << 20
_STORE_NEEDS = ("redis", "pydantic")

# The smallest graph: y = x + x. Opening it shows that the runtime works, and where it really runs.
_GRAPH = bytes.fromhex(
    "080812003a350a0e0a01780a017812017922034164641201675a0f0a0178120a0a08080112040a02"
    "0801620f0a0179120a0a08080112040a02080142040a001011"
)


class State(StrEnum):
    """How bad it is; only what is broken makes the exit code 1."""

    OK = "ok"
    NOTE = "note"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: how it is, and what to do about it."""

    name: str
    state: State
    words: str
    todo: str = ""


def doctor(
    home: Home = HOME, root: Root = None, redis_url: RedisUrl = None, as_json: JsonFlag = False
) -> None:
    """Say what this machine lacks: packages, runtime, cores, store, disk, clock. Exit code 1: broken."""
    findings = [
        *_python(),
        *_extras(),
        *_runtime(),
        *_settings(),
        *_cores(),
        *_store(redis_url),
        *_disk("home", home),
        *([] if root is None else _disk("data", root)),
        *_clock(),
    ]
    sound = all(finding.state is not State.BROKEN for finding in findings)
    if as_json:
        print_json({"ok": sound, "findings": [asdict(finding) for finding in findings]})
    else:
        _show(findings)
    raise typer.Exit(0 if sound else 1)


def _show(findings: list[Finding]) -> None:
    colours = {State.OK: "green", State.NOTE: "yellow", State.BROKEN: "bold red"}
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = f"[{colours[finding.state]}]{finding.state.value:6}[/]"
        out.print(f"{mark}  {escape(finding.name.ljust(width))}  {escape(finding.words)}", soft_wrap=True)
        if finding.todo:
            out.print(f"{' ' * (width + 10)}[dim]{escape(finding.todo)}[/]", soft_wrap=True)


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _python() -> Iterator[Finding]:
    words = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    if sys.version_info < _OLDEST_PYTHON:
        yield Finding("python", State.BROKEN, words, "install Python 3.11 or newer")
    elif sys.platform != "linux":
        yield Finding("python", State.NOTE, words, "rankd is tested on Linux only")
    else:
        yield Finding("python", State.OK, words)


def _extras() -> Iterator[Finding]:
    by_extra: dict[str, list[str]] = {"features": ["pyarrow", "redis"]}
    for module, extra in EXTRAS.items():
        by_extra.setdefault(extra, []).append(module)
    for extra, modules in by_extra.items():
        absent = [module for module in modules if not _has(module)]
        if not absent:
            yield Finding(f"rankd[{extra}]", State.OK, "installed")
            continue
        words = "not installed" if len(absent) == len(modules) else f"lacks {', '.join(absent)}"
        yield Finding(f"rankd[{extra}]", State.NOTE, words, f"pip install 'rankd[{extra}]'")


def _runtime() -> Iterator[Finding]:
    found = {name: _version(name) for name in ("onnxruntime", "onnxruntime-gpu")}
    installed = [f"{name} {number}" for name, number in found.items() if number]
    if not installed:
        yield Finding(
            "runtime", State.NOTE, "no onnxruntime", "needed to serve: pip install 'rankd[service]'"
        )
        return
    if len(installed) > 1:
        todo = "both own one folder and overwrite each other: pip uninstall both, then install rankd[service]"
        yield Finding("runtime", State.BROKEN, " and ".join(installed), todo)
    try:
        from rankd_service.errors import BundleRefused
        from rankd_service.inference.runtime import runtime
        from rankd_service.inference.session import GraphSession
        from rankd_service.settings import ProviderChoice

        runtime()
    except (ImportError, OSError) as error:  # a library of the runtime may not load
        yield Finding(
            "runtime", State.BROKEN, f"{installed[0]} cannot be loaded: {error}", "install it again"
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "probe.onnx"
        graph.write_bytes(_GRAPH)
        has_gpu = Path("/dev/nvidia0").exists()
        wanted = ProviderChoice.PREFER_CUDA if has_gpu else ProviderChoice.CPU
        try:
            session = GraphSession(graph, 1, wanted)
        except BundleRefused as error:
            yield Finding("runtime", State.BROKEN, str(error), "install onnxruntime again")
            return
    words = f"{installed[0]}, graphs run on {session.provider}"
    if session.fallback:
        todo = f"there is a GPU that it cannot use: {session.fallback}"
        yield Finding("runtime", State.NOTE, words, todo)
    else:
        yield Finding("runtime", State.OK, words if has_gpu else f"{words} (no GPU here)")


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _settings() -> Iterator[Finding]:
    if not (_has("pydantic") and _has("pydantic_settings")):
        return
    from rankd_service.errors import StartupFailed
    from rankd_service.settings_sources import load_settings

    try:
        load_settings()
    except StartupFailed as error:
        for line in str(error).splitlines():
            yield Finding("settings", State.BROKEN, line, "mend the RANKD_... variable it speaks of")
    else:
        yield Finding("settings", State.OK, "the environment holds no wrong setting")


def _cores() -> Iterator[Finding]:
    from rankd_service.cores import cores

    found = cores()
    limits = f"{found.machine} in the machine, {found.affinity} by affinity"
    limits += "" if found.quota is None else f", {found.quota:g} by quota"
    words = f"{found.usable:g} cores usable ({limits})"
    if found.usable < 1:
        todo = "less than a core: every answer waits for the next slice of time; raise the quota"
        yield Finding("cores", State.NOTE, words, todo)
    else:
        yield Finding("cores", State.OK, words)


def _store(url: str | None) -> Iterator[Finding]:
    if not all(map(_has, _STORE_NEEDS)):
        yield Finding("store", State.NOTE, "not looked for", "needs pip install 'rankd[service]'")
        return
    from rankd_service.errors import ServiceError
    from rankd_service.features.embedded import server_binary
    from rankd_service.features.redis_bulk import open_bulk
    from rankd_service.features.store_address import shown_url

    try:
        if not url:
            words = f"no REDIS_URL: an embedded one is started, {server_binary()}"
            yield Finding("store", State.OK, words)
            return
        with closing(open_bulk(url, _STORE_S)) as store:
            clocks, now_s = store.clocks(), datetime.now(UTC).timestamp()
            without, is_part = store.without_a_server, store.is_part_of_a_cluster()
    except ServiceError as error:
        todo = "start the server, or mend REDIS_URL; without it answers come from defaults" if url else ""
        yield Finding("store", State.BROKEN, str(error), todo)
        return
    if without:
        words = f"{shown_url(url)}: {without:.0%} of the keys have no primary"
        todo = "see CLUSTER NODES for the one that is gone; its rows are defaults until it is back"
        yield Finding("store", State.BROKEN, words, todo)
    elif is_part:
        words = f"{shown_url(url)} is one node of a cluster and refuses reads of the others' keys"
        yield Finding("store", State.BROKEN, words, "write its address as redis+cluster://...")
    else:
        of = f", {len(clocks)} primaries" if len(clocks) > 1 else ""
        yield Finding("store", State.OK, f"{shown_url(url)} answers{of}")
    for name, at_s in clocks.items():
        if abs(now_s - at_s) > _SKEW_S:
            words = f"this machine's clock is {now_s - at_s:+.0f} s off that of {name}"
            todo = "set both clocks by NTP: rows would be taken for stale or unborn"
            yield Finding("clock", State.BROKEN, words, todo)


def _disk(name: str, folder: Path) -> Iterator[Finding]:
    above = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(above).free
    words = f"{folder}: {free / 2**30:.1f} GiB free"
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        option = "--home" if name == "home" else "--root"
        yield Finding(
            f"disk, {name}", State.BROKEN, f"{above} cannot be written", f"choose another with {option}"
        )
    elif free < _NEEDED_BYTES:
        yield Finding(
            f"disk, {name}", State.BROKEN, words, "make room: a run and its bundle need some 100 MB"
        )
    else:
        state = State.NOTE if free < _LOW_BYTES else State.OK
        yield Finding(f"disk, {name}", state, words)


def _clock() -> Iterator[Finding]:
    now = datetime.now(UTC)
    if now < _BUILT:
        yield Finding(
            "clock", State.BROKEN, f"{now:%Y-%m-%d %H:%M} UTC is long past", "set the clock, by NTP"
        )
    else:
        yield Finding("clock", State.OK, f"{now:%Y-%m-%d %H:%M} UTC")
