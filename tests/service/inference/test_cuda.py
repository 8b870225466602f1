"""What is said of a driver that is absent, or is none."""

from __future__ import annotations

import pytest

from rankd_service.inference.cuda import driver_absence


@pytest.mark.fault("F8")
@pytest.mark.parametrize(
    ("library", "said"),
    [
        ("libno-such-driver.so.1", "libno-such-driver.so.1 is not on this machine; install the driver"),
        ("libc.so.6", "libc.so.6 is no NVIDIA driver"),
    ],
)
def test_a_driver_that_is_not_there_is_said_with_what_to_do(library: str, said: str) -> None:
    assert said in (driver_absence(library) or "")
