"""A real HTTP server on loopback that serves a few files, well or badly, as a test asks for."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Manner(Enum):
    """How one request is answered."""

    PROPER = auto()  # knows ranges
    CUT = auto()  # promises what is asked for, closes half-way
    WITHOUT_RANGES = auto()  # sends everything, whatever is asked
    OTHER_CONTENT = auto()  # right length, wrong bytes
    LOGIN_PAGE = auto()  # 200 with something short, as captive portals do
    OTHER_RANGE = auto()  # another part than asked for
    BUSY = auto()  # 503
    ABSENT = auto()  # 404


@dataclass
class FileServer:
    """`files` by path; each request takes the next of `manners`, the last one stays."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    manners: list[Manner] = field(default_factory=lambda: [Manner.PROPER])
    login: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def next_manner(self) -> Manner:
        return self.manners.pop(0) if len(self.manners) > 1 else self.manners[0]


class _Handler(BaseHTTPRequestHandler):
    files: FileServer

    def do_GET(self) -> None:
        self.files.asked.append((self.path, self.headers.get("Range")))
        wanted = "Basic " + base64.b64encode(self.files.login.encode()).decode()
        if self.files.login and self.headers.get("Authorization") != wanted:
            self._answer(401, b"", {"WWW-Authenticate": 'Basic realm="index"'})
            return
        content = self.files.files.get(self.path)
        manner = self.files.next_manner() if content is not None else Manner.ABSENT
        content = content or b""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(asked[1]) if asked and manner is not Manner.WITHOUT_RANGES else 0
        match manner:
            case Manner.ABSENT:
                self._answer(404, b"")
            case Manner.BUSY:
                self._answer(503, b"")
            case Manner.LOGIN_PAGE:
                self._answer(200, b"<html>Please sign in</html>")
            case Manner.OTHER_CONTENT:
                self._send(bytes(byte ^ 1 for byte in content), first)
            case Manner.OTHER_RANGE:
                self._send(content, first // 2)
            case Manner.CUT:
                self._send(content, first, keep=(len(content) - first) // 2)
                self.close_connection = True
            case _:
                self._send(content, first)

    def _send(self, content: bytes, first: int, keep: int | None = None) -> None:
        if first >= len(content) > 0:
            self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        span = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if first else {}
        self._answer(206 if first else 200, content[first:], span, keep)

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, keep: int | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/zip")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:keep])

    def log_message(self, *arguments: object) -> None:
        """Say nothing on the console."""


@contextmanager
def running() -> Iterator[FileServer]:
    """Serve on a free port until the block ends."""
    files = FileServer()
    handler = type("Handler", (_Handler,), {"files": files})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        files.address = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield files
        finally:
            server.shutdown()
            thread.join()
