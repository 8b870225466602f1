"""Memory that is nearly used up is seen before the kernel sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankd_service.memory import MemoryWatch, Pressure, used_share

NONE, HIGH, CRITICAL = Pressure.NONE, Pressure.HIGH, Pressure.CRITICAL


def a_group(root: Path, limit: str, current: int, inactive_file: int, path: str = "pod/container") -> Path:
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/cgroup").write_text(f"0::/{path}\n")
    group = root / "sys/fs/cgroup" / path
    group.mkdir(parents=True)
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text(f"{current}\n")
    (group / "memory.stat").write_text(f"anon {current}\ninactive_file {inactive_file}\nactive_file 0\n")
    return group


@pytest.mark.fault("E11")
def test_the_ladder_is_climbed_and_left_without_going_up_and_down() -> None:
    shares = iter([0.5, 0.91, 0.89, 0.96, 0.94, 0.92, 0.89, 0.87, 0.99, 0.1])
    watch = MemoryWatch(lambda: next(shares))
    seen = []
    for _ in range(10):
        watch.look()
        seen.append(watch.pressure)
    assert seen == [NONE, HIGH, HIGH, CRITICAL, CRITICAL, HIGH, HIGH, NONE, CRITICAL, NONE]


@pytest.mark.fault("E11")
def test_files_that_the_kernel_may_forget_are_no_pressure(tmp_path: Path) -> None:
    a_group(tmp_path, "1000", current=990, inactive_file=500)
    assert used_share(None, tmp_path)() == pytest.approx(0.49)


def test_the_nearest_limit_above_us_counts(tmp_path: Path) -> None:
    inner = a_group(tmp_path, "max", current=10, inactive_file=0)
    (inner.parent / "memory.max").write_text("100\n")
    (inner.parent / "memory.current").write_text("95\n")
    assert used_share(None, tmp_path)() == pytest.approx(0.95)


def test_without_a_limit_there_is_no_pressure(tmp_path: Path) -> None:
    assert used_share(None, tmp_path)() == 0
    a_group(tmp_path, "max", current=10, inactive_file=0)
    assert used_share(None, tmp_path)() == 0


def test_this_process_has_memory_of_its_own() -> None:
    assert 0 < used_share(100_000)() < 1
    assert used_share(1)() > 1
