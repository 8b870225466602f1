"""onnxruntime, loaded when it is first asked for and not where a module is imported.

Loading it starts a thread, and a fork takes only one along: the process that workers are forks of has
everything loaded but this.
"""

from __future__ import annotations

from functools import cache
from typing import Any

__all__ = ["FATAL", "runtime"]

FATAL = 4
"""Severity from which on the runtime writes lines of its own, which are no JSON; it raises errors as well."""


@cache
def runtime() -> Any:
    """Return the package; the first call loads it, which takes a tenth of a second."""
    import onnxruntime  # noqa: PLC0415

    onnxruntime.disable_telemetry_events()  # it would keep a queue of usage events in the user's cache
    onnxruntime.set_default_logger_severity(FATAL)
    return onnxruntime
