from __future__ import annotations

from pathlib import Path

import pytest

from rankd_service.cores import Cores, cores


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    """Write what the kernel would show under `/proc` and `/sys`."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def v1(group: str, quota_us: int) -> dict[str, str]:
    return {f"{group}/cpu.cfs_quota_us": f"{quota_us}\n", f"{group}/cpu.cfs_period_us": "100000\n"}


V1 = "5:memory:/x\n3:cpu,cpuacct:/docker/abc\n0::/\n"
CASES: dict[str, tuple[str, dict[str, str], float | None]] = {
    "no limit": ("0::/\n", {"cpu.max": "max 100000\n"}, None),
    "half a core": ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
    "of the group": ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n", "cpu.max": "max 100000\n"}, 1.5),
    "of a parent": ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2.0),
    "of the tightest": ("0::/a/b\n", {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "50000 50000\n"}, 1.0),
    "version 1": (V1, v1("cpu/docker/abc", 250_000), 2.5),
    "version 1, seen from inside": (V1, v1("cpu", 80_000), 0.8),
    "version 1, no limit": (V1, v1("cpu", -1), None),
    "no files": (V1, {}, None),
}


@pytest.mark.parametrize("what", list(CASES))
def test_the_quota_is_the_tightest_of_ours_and_our_parents(what: str, tmp_path: Path) -> None:
    groups, files, expected = CASES[what]
    assert cores(machine(tmp_path, groups, files)).quota == expected


def test_a_machine_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    found = cores(tmp_path)
    assert found.quota is None
    assert found.usable == found.affinity >= 1


def test_what_is_usable_is_the_least_of_all() -> None:
    assert Cores(64, 8, 2.5).usable == 2.5
    assert Cores(64, 2, 4.0).usable == 2.0
