"""Log lines as JSON, one a record, so that nothing a caller sends can break a line.

Everything that would else write lines of its own comes the same way: Python's warnings, exceptions that
nobody caught, in any thread or while an object is thrown away. (onnxruntime is silenced where it is used: it
raises what it would write.) Left alone is `faulthandler`, which speaks when nothing else can.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import orjson

__all__ = ["JsonLines", "log_to_stderr"]

_log = logging.getLogger(__name__)

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


def log_to_stderr(level: str = "INFO", **always: object) -> None:
    """Send every record of the process from that level up to stderr, and whatever else it has to say.

    `always` stands in each line, such as the number of a worker.
    """
    handler = logging.StreamHandler()
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
