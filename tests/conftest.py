"""What must hold before any test's module is imported."""

from __future__ import annotations

import os
import signal
from pathlib import Path

if not Path("/dev/nvidia0").exists():
    # Read as Triton is imported, which parts of torch do: without it kernels want a device (`tests/kernels`).
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Tests name the folder that they mean; RANKD_DATA says where data sets are, and stays.
os.environ.pop("RANKD_HOME", None)

# A run under `nohup` would hand the ignoring of a closed terminal on to the services that tests start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
