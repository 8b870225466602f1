from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from rankd_service.telemetry import Telemetry
from rankd_service.workers.exposition import Families, snapshot
from rankd_service.workers.totals import Totals


def told(requests: float, busy: float = 0, workers: float = 2) -> list[dict[str, Any]]:
    return [
        family("requests", "count", [["requests_total", {"code": "200"}, requests]]),
        family("busy", "sum", [["busy", {}, busy]]),
        family("crew", "whole", [["crew", {}, workers]]),
    ]


def family(name: str, merge: str, samples: list[Any]) -> dict[str, Any]:
    return {"name": name, "type": "gauge", "help": name, "merge": merge, "samples": samples}


def values(totals: Totals, asking: int) -> dict[str, float]:
    return {f["name"]: f["samples"][0][2] for f in totals.merged(asking)}


def test_counters_and_gauges_are_added_up_and_what_is_told_of_all_is_taken_once() -> None:
    totals = Totals()
    totals.keep(0, told(3, busy=1, workers=2))
    totals.keep(1, told(4, busy=2, workers=1))
    assert values(totals, asking=0) == {"requests": 7, "busy": 3, "crew": 2}
    assert values(totals, asking=1) == {"requests": 7, "busy": 3, "crew": 1}


def test_i5_what_an_ended_worker_counted_stays_and_what_it_did_goes() -> None:
    totals = Totals()
    totals.keep(0, told(3, busy=1))
    totals.keep(1, told(4, busy=2))
    totals.retire(1)
    assert values(totals, asking=0) == {"requests": 7, "busy": 1, "crew": 2}
    totals.keep(1, told(1, busy=5))
    totals.retire(1)
    totals.retire(1)
    assert values(totals, asking=0)["requests"] == 8


def test_a_series_began_when_the_first_worker_began_it() -> None:
    totals = Totals()
    totals.keep(0, [family("requests", "count", [["requests_created", {}, 20.0]])])
    totals.keep(1, [family("requests", "count", [["requests_created", {}, 10.0]])])
    totals.retire(1)
    assert values(totals, asking=0) == {"requests": 10.0}


def test_the_metrics_of_one_worker_come_out_as_they_went_in() -> None:
    registry = CollectorRegistry()
    Telemetry(registry).redis_read.observe(0.004)
    totals = Totals()
    totals.keep(0, snapshot(registry))
    mine = [line for line in generate_latest(registry).decode().splitlines() if "rankd_" in line]
    merged = generate_latest(Families(totals.merged(0))).decode().splitlines()
    assert [line for line in merged if "rankd_" in line] == mine
