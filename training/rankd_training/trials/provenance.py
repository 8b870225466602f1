"""When and where a result was made, and with which versions: what every file of results says."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from rankd_training.trials.trial import versions

__all__ = ["made_by"]


def made_by(command: str, date: str) -> dict[str, Any]:
    """Put it together; `command` names no path of this machine."""
    return {
        "date": date,
        "command": command,
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": versions(),
    }


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or "an unnamed processor"
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else "an unnamed processor"
