"""Tries a bundle out in a process of its own: what hangs, crashes or fills memory does so there, alone.

The process checks the graph, builds the session and runs the recorded requests on the CPU, within limits of
time and memory that the kernel holds. It costs about as much again as loading. A bundle that came through is
loaded here; that its scores are the recorded ones is checked here too, where it will be served.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from rankd_contract.bundle import Bundle
from rankd_contract.manifest import WEIGHTS
from rankd_service.errors import BundleRefused
from rankd_service.settings import ModelSettings

__all__ = ["Trial", "graphs_of", "weights_beside"]

_REFUSED = 3
_GRAPHS = ".onnx"

# With the import path of this process, whatever made it, and none of the working folder's own.
_BOOT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from rankd_service.inference.trial_process import main
sys.exit(main(json.loads(sys.argv[2])))
"""
_GRACE_S = 5.0  # the kernel counts the process's own time; on a busy machine that passes more slowly
_MOST_SAID = 2000
_TIMES_THE_FILES = 3  # two graphs map the weights at a time, and some layers keep them in another order


class Trial:
    """Tries bundles out, one after another; `models.trial_s` of 0 tries none."""

    def __init__(self, settings: ModelSettings) -> None:
        """Keep the limits."""
        self._settings = settings
        self._lock, self._stopped = threading.Lock(), False
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def stopped(self) -> bool:
        """Whether nothing is tried any more."""
        return self._stopped

    def stop(self) -> None:
        """End what is being tried, and try nothing more; its bundle is refused."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def __call__(self, bundle: Bundle) -> None:
        """Return where a bundle came through. Raises BundleRefused, also where nothing could be started."""
        settings, manifest = self._settings, bundle.manifest
        if not settings.trial_s:
            return
        at = f"{manifest.model} version {manifest.version}"
        try:
            code, said = self._run(bundle)
        except subprocess.TimeoutExpired as error:
            raise BundleRefused(f"{at}: {self._too_slow()}") from error
        except OSError as error:
            raise BundleRefused(f"{at}: cannot be tried out: {error}; see models.trial_s") from error
        if self._stopped:
            raise BundleRefused(f"{at}: was not tried out to its end, since the service ends")
        if code == _REFUSED:
            raise BundleRefused(f"{at}: {said}")
        if code == -signal.SIGXCPU:
            raise BundleRefused(f"{at}: {self._too_slow()}")
        if code:
            raise BundleRefused(
                f"{at}: the process that tried it out {_words(code)}; it had {settings.trial_mb} MB besides "
                "thrice the bundle's files (models.trial_mb); export again, or raise that for a sound model"
            )

    def _run(self, bundle: Bundle) -> tuple[int, str]:
        settings = self._settings
        chains = [[bundle.graph], *([] if bundle.in_two is None else [bundle.in_two])]
        of_files = sum(entry.bytes for entry in bundle.manifest.files.values())
        orders = {
            "checked": [str(path) for path in graphs_of(bundle)],
            "run": [[str(path) for path in chain] for chain in chains],
            "golden": str(bundle.golden),
            "opset": bundle.manifest.opset,
            "apart": weights_beside(bundle),
            "cpu_s": settings.trial_s,
            "memory_bytes": (settings.trial_mb << 20) + _TIMES_THE_FILES * of_files,
        }
        command = [sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path), json.dumps(orders)]
        with self._lock:
            if self._stopped:
                return -signal.SIGKILL, ""
            self._process = process = subprocess.Popen(
                [*command, "rankd-trial"],  # for people who look at a list of processes
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C is for the service, which ends it
            )
        try:
            said, _ = process.communicate(timeout=settings.trial_s + _GRACE_S)
        finally:
            with self._lock:
                self._process = None
            with suppress(OSError):
                process.kill()
            process.communicate()
        return process.returncode, " ".join(said.decode("utf-8", "replace").split())[:_MOST_SAID]

    def _too_slow(self) -> str:
        return (
            f"it was tried out for {self._settings.trial_s:g} s (models.trial_s) and had not come through by "
            "then; export again, or raise that if the model is sound and the machine slow"
        )


def graphs_of(bundle: Bundle) -> list[Path]:
    """Return every graph of a bundle."""
    return [bundle.path / name for name in sorted(bundle.manifest.files) if name.endswith(_GRAPHS)]


def weights_beside(bundle: Bundle) -> dict[str, int]:
    """Return the files that a bundle's graphs may keep tensors in, by name, with their sizes in bytes."""
    return {name: entry.bytes for name, entry in bundle.manifest.files.items() if name == WEIGHTS}


def _words(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
