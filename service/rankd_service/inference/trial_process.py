"""The process in which a bundle is tried out. Exit code 0: came through; 3: standard output says why not.

Its limits are set after everything of ours is loaded and before the first byte of the bundle is read.
"""

from __future__ import annotations

import ctypes
import math
import resource
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankd_service.errors import BundleRefused
from rankd_service.inference.golden import GoldenError, read_golden
from rankd_service.inference.graph_file import GraphError, check_graph
from rankd_service.inference.runtime import runtime
from rankd_service.inference.session import GraphSession
from rankd_service.provider import ProviderChoice

__all__ = ["main"]

_REFUSED = 3
_PDEATHSIG = 1

Requests = Mapping[str, Mapping[str, NDArray[np.generic]]]


def main(orders: Mapping[str, Any]) -> int:
    """Try a bundle out as ordered -> exit code."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)  # nobody would read the verdict
    with suppress(OSError):  # where memory is short, let it be this process and not the one that serves
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    runtime()
    _limit(math.ceil(orders["cpu_s"]), orders["memory_bytes"])
    try:
        for path in map(Path, orders["checked"]):
            _check(path, orders["opset"], orders["apart"])
        requests = read_golden(Path(orders["golden"]))
        for chain in orders["run"]:
            _run(list(map(Path, chain)), requests)
    except GraphError as error:
        return _refuse(str(error))
    except GoldenError as error:
        return _refuse(f"{Path(orders['golden']).name} {error}")
    except (BundleRefused, OSError) as error:
        return _refuse(f"{error}{_hint(error)}")
    except MemoryError as error:
        return _refuse(f"it does not fit{_hint(error)}")
    except Exception as error:  # a mistake of ours, which nobody would see otherwise
        return _refuse(f"trying it out failed: {type(error).__name__}: {error}")
    return 0


def _limit(cpu_s: int, memory_bytes: int) -> None:
    page = resource.getpagesize()
    own_bytes = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * page
    for what, most in (
        (resource.RLIMIT_AS, own_bytes + memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        ceiling = resource.getrlimit(what)[1]
        soft = most if ceiling == resource.RLIM_INFINITY else min(most, ceiling)
        # One second between the signal that says what it was and the one that cannot be ignored.
        hard = soft + 1 if what == resource.RLIMIT_CPU and soft == most else soft
        resource.setrlimit(what, (soft, hard if ceiling == resource.RLIM_INFINITY else min(hard, ceiling)))


def _check(path: Path, opset: int, apart: Mapping[str, int]) -> None:
    try:
        check_graph(path, opset, apart)
    except GraphError as error:
        raise GraphError(f"{path.name}: {error}") from error


def _run(chain: list[Path], requests: Requests) -> None:
    """Run each request through graphs of which one takes what the one before gives."""
    sessions = [GraphSession(path, 1, ProviderChoice.CPU) for path in chain]
    for k, arrays in requests.items():
        known = dict(arrays)
        for session in sessions:
            names = [spec.name for spec in session.inputs]
            outputs = [spec.name for spec in session.outputs]
            # What cannot be run is refused by the loader, in its own words; no rows would end this process.
            if not all(name in known and np.size(known[name]) for name in names):
                break
            try:
                found = session.run(outputs, {name: known[name] for name in names})
            except MemoryError:
                raise
            except Exception as error:  # onnxruntime's own errors share no other base
                if type(error).__name__ == "InvalidArgument":  # was not run, as above
                    break
                raise BundleRefused(f"golden request {k} cannot be run: {error}") from error
            known |= dict(zip(outputs, found, strict=True))


def _hint(error: Exception) -> str:
    words = str(error).lower()
    full = isinstance(error, MemoryError) or "alloc" in words or "memory" in words
    return "; it was tried out with limited memory: models.trial_mb raises it" if full else ""


def _refuse(words: str) -> int:
    print(words, flush=True)  # noqa: T201  # the pipe to who asked
    return _REFUSED
