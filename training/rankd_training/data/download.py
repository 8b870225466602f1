"""One file over HTTP: resumed where it stopped, checked against its size and digest, renamed into place.

A `.part` file beside the target survives a cut, so that the next call asks only for the rest. What does not
have the expected digest is never left behind under the target's name.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

import httpx

from rankd_training.data.prepared import sha256_of
from rankd_training.errors import DigestMismatch, DownloadFailed

TIMEOUT = httpx.Timeout(connect=10.0, read=30.0, write=10.0, pool=10.0)
ATTEMPTS = 4
# Answers that another try may change.
_PASSING = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


class Progress(Protocol):
    """Told after each piece how far a download is."""

    def __call__(self, what: str, done_bytes: int, total_bytes: int) -> None:
        """`what` names the file; `done_bytes` counts what earlier calls had brought."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file known beforehand, wherever it is fetched from."""

    name: str
    size_bytes: int
    sha256: str


def ignore_progress(what: str, done_bytes: int, total_bytes: int) -> None:
    """Tell nobody."""


def fetch(
    url: str,
    remote: RemoteFile,
    target: Path,
    *,
    progress: Progress = ignore_progress,
    timeout: httpx.Timeout = TIMEOUT,
    attempts: int = ATTEMPTS,
    pause: Callable[[float], None] = time.sleep,  # noqa: TID251 - a command waits here, not a service
) -> Path:
    """Bring `url` to `target`; a file already there with the right digest is kept as it is.

    Args:
        url: http or https. Proxies and certificates are those of the system and its environment.
        remote: what the file must be.
        target: where it goes; the folder must exist.
        progress: told of each piece.
        timeout: for each connection and read.
        attempts: how often to ask before giving up; each continues where the last one stopped.
        pause: called with seconds between attempts.

    Raises:
        DownloadFailed: it could not be brought; what had arrived is kept for the next call.
        DigestMismatch: it arrived whole and is something else; it has been removed.
    """
    if is_intact(target, remote):
        return target
    part = target.with_name(f"{target.name}.part")
    problem = "nothing was asked"
    try:
        with httpx.Client(
            verify=ssl.create_default_context(), follow_redirects=True, timeout=timeout
        ) as client:
            for attempt in range(attempts):
                if attempt:
                    pause(0.5 * 2 ** (attempt - 1))
                resumed = part.exists()
                unfinished = _continue(client, url, remote, part, progress)
                if unfinished is None:
                    if is_intact(part, remote):
                        return part.replace(target)
                    actual = sha256_of(part)
                    part.unlink()
                    # Pieces of two different files may have met; a file sent in one answer has no excuse.
                    if not resumed or attempt == attempts - 1:
                        raise DigestMismatch(_shown(url), remote.sha256, actual)
                problem = unfinished or "the pieces did not fit together"
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects, ImportError) as error:
        raise DownloadFailed(f"{_shown(url)} cannot be fetched: {error}") from error
    except OSError as error:
        raise DownloadFailed(f"cannot write {part}: {error}") from error
    raise DownloadFailed(f"{_shown(url)}: {problem} (asked {attempts} times)")


def is_intact(path: Path, remote: RemoteFile) -> bool:
    """Say whether `path` is the file wanted."""
    return path.is_file() and path.stat().st_size == remote.size_bytes and sha256_of(path) == remote.sha256


def _continue(
    client: httpx.Client, url: str, remote: RemoteFile, part: Path, progress: Progress
) -> str | None:
    """Ask for what is missing of `part`. None when it has all its bytes, else why it has not."""
    done = part.stat().st_size if part.exists() else 0
    if done >= remote.size_bytes:
        return None
    # Ranges count bytes as sent: no compression on the way.
    headers = {"Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    try:
        with client.stream("GET", url, headers=headers) as response:
            unusable = _unusable(url, response, remote, part)
            if unusable:
                return unusable
            # A server that knows no ranges sends everything again.
            done = done if response.status_code == HTTPStatus.PARTIAL_CONTENT else 0
            with part.open("ab" if done else "wb") as file:
                for piece in response.iter_raw():
                    file.write(piece)
                    done += len(piece)
                    progress(remote.name, min(done, remote.size_bytes), remote.size_bytes)
                    if done > remote.size_bytes:
                        break
    except (httpx.NetworkError, httpx.ProtocolError, httpx.ProxyError, httpx.TimeoutException) as error:
        return f"{type(error).__name__} after {done} of {remote.size_bytes} bytes ({error})"
    return None if done >= remote.size_bytes else f"ended after {done} of {remote.size_bytes} bytes"


def _unusable(url: str, response: httpx.Response, remote: RemoteFile, part: Path) -> str | None:
    """Why this answer's body must not be written, where another try may bring a better one."""
    status = response.status_code
    if status == HTTPStatus.OK:
        offered = response.headers.get("Content-Length", str(remote.size_bytes))
        return None if offered == str(remote.size_bytes) else f"offers {offered} of {remote.size_bytes} bytes"
    if status == HTTPStatus.PARTIAL_CONTENT:
        start = part.stat().st_size if part.exists() else 0
        sent = response.headers.get("Content-Range", "")
        if sent == f"bytes {start}-{remote.size_bytes - 1}/{remote.size_bytes}":
            return None
        part.unlink(missing_ok=True)
        return f"sends the range {sent!r} of another file"
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        part.unlink(missing_ok=True)
        return "has fewer bytes than had arrived"
    reason = f"the server answered {status} {response.reason_phrase}"
    if status in _PASSING:
        return reason
    raise DownloadFailed(f"{_shown(url)}: {reason}")


def _shown(url: str) -> str:
    """The address without what may be secret in it."""
    return re.sub(r"//[^/@]*@", "//", url).partition("?")[0]
