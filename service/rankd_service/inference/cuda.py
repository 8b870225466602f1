"""Whether this machine can run CUDA at all, asked of the driver: the runtime only finds out with noise."""

from __future__ import annotations

import ctypes

__all__ = ["DRIVER", "driver_absence"]

DRIVER = "libcuda.so.1"
_NO_DEVICE = 100


def driver_absence(library: str = DRIVER) -> str | None:
    """Say in words why no CUDA device can be used here, and what to do; None where one can."""
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return (
            f"the NVIDIA driver's library {library} is not on this machine; install the driver, "
            "or give the container a GPU"
        )
    try:
        code = driver.cuInit(0)
    except AttributeError:
        return f"{library} is no NVIDIA driver; install the driver again"
    if code == _NO_DEVICE:
        return (
            f"the driver finds no GPU ({library} gives {code}); see nvidia-smi, or give the container a GPU"
        )
    return f"the driver cannot start ({library} gives {code}); see nvidia-smi" if code else None
