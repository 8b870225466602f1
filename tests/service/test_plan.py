from __future__ import annotations

import pytest

from rankd_service.cores import Cores
from rankd_service.plan import plan
from rankd_service.settings import Settings
from rankd_service.settings_sources import load_settings


@pytest.mark.parametrize(("quota", "workers"), [(None, 8), (4.0, 4), (2.5, 2), (0.5, 1)])
def test_there_is_one_worker_for_each_whole_core_that_may_be_used(quota: float | None, workers: int) -> None:
    planned = plan(Settings(), Cores(machine=64, affinity=8, quota=quota))
    assert (planned.workers, planned.threads, planned.objection) == (workers, 1, None)


def test_more_threads_than_cores_are_objected_to() -> None:
    settings = load_settings(server={"workers": 2}, inference={"threads": 2})
    planned = plan(settings, Cores(machine=2, affinity=2, quota=None))
    assert "want 4 cores where 2 may be used" in (planned.objection or "")
