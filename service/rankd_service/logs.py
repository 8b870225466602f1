"""Log lines as JSON, one a record, so that nothing a caller sends can break a line.

Everything that would else write lines of its own comes the same way: Python's warnings, exceptions that
nobody caught, in any thread or while an object is thrown away. (onnxruntime is silenced where it is used: it
raises what it would write.) Left alone is `faulthandler`, which speaks when nothing else can.

Lines are written by a thread: whoever reads them may stand still, and requests must not wait for that.
"""

from __future__ import annotations

import json
import logging
import queue
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import orjson

__all__ = ["JsonLines", "log_to_stderr"]

_log = logging.getLogger(__name__)

_MOST_WAITING = 10_000
_LAST_WORDS_S = 1.0
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
}


class JsonLines(logging.Formatter):
    """Formats a record, with what was passed as `extra`, as one line of JSON; `always` stands in each."""

    def __init__(self, **always: object) -> None:
        super().__init__()
        self._always = always

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._always,
        }
        line.update((key, value) for key, value in record.__dict__.items() if key not in _STANDARD)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # a number beyond 64 bits, or a file name that is no Unicode
            text = json.dumps(line, default=str, skipkeys=True, ensure_ascii=False)
            return text.encode(errors="replace").decode()


class _Beside(logging.Handler):
    """Formats where it is called and writes in a thread; lines that there is no room for are counted."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.Queue[str] = queue.Queue(_MOST_WAITING)
        self._dropped = 0
        threading.Thread(target=self._write, name="rankd-log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written."""
        try:
            line = self.format(record)
        except Exception:  # as every handler: a mistake in a call of ours ends no request
            self.handleError(record)
            return
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Wait until what was said is written, but not for a reader that stands still."""
        with self._lines.all_tasks_done:
            self._lines.all_tasks_done.wait_for(lambda: not self._lines.unfinished_tasks, _LAST_WORDS_S)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            dropped, self._dropped = self._dropped, 0
            if dropped:
                line += f"\n{self._said_of(dropped)}"
            with suppress(OSError, ValueError):  # nobody reads any more
                sys.stderr.write(f"{line}\n")
                sys.stderr.flush()
            self._lines.task_done()

    def _said_of(self, dropped: int) -> str:
        text = f"{dropped} lines were dropped: whoever reads this log is too slow"
        return self.format(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None))


def log_to_stderr(level: str = "INFO", **always: object) -> None:
    """Send every record of the process from that level up to stderr, and whatever else it has to say.

    `always` stands in each line, such as the number of a worker.
    """
    handler = _Beside()
    handler.setFormatter(JsonLines(**always))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_thread
    sys.unraisablehook = _log_unraisable


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _log.critical("uncaught %s: %s", kind.__name__, error, exc_info=(kind, error, trace))


def _log_thread(given: threading.ExceptHookArgs) -> None:
    if given.exc_value is not None and given.exc_type is not SystemExit:
        where = given.thread.name if given.thread else "a thread"
        caught = given.exc_type, given.exc_value, given.exc_traceback
        _log.error("%s ended by %s: %s", where, given.exc_type.__name__, given.exc_value, exc_info=caught)


def _log_unraisable(given: Any) -> None:
    where = f"{given.err_msg or 'exception ignored in'} {given.object!r}"
    _log.error("%s", where, exc_info=(given.exc_type, given.exc_value, given.exc_traceback))
