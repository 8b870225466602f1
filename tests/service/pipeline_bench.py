"""A pipeline over one model, a store and a clock of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry

from rankd_contract.schema_file import parse_schema
from rankd_service.app import near_caches
from rankd_service.deadline import Deadline
from rankd_service.domain import Candidates, Fields, RankRequest, Slate, User
from rankd_service.inference.loader import load_current
from rankd_service.inference.registry import ModelRegistry
from rankd_service.pipeline import RankPipeline
from rankd_service.settings_sources import load_settings
from rankd_service.stage_times import StageTimes
from rankd_service.telemetry import Telemetry
from tests.support.bundles import (
    SCHEMA_TEXT,
    Graph,
    item_rows,
    publish_bundle,
    user_rows,
)
from tests.support.clock import JumpingClock
from tests.support.memory_store import MemoryStore

ITEMS = [str(i) for i in range(10)]
PRICES = [0.01 * i for i in range(10)]
SCHEMA = parse_schema(SCHEMA_TEXT)


class Bench:
    """A pipeline over one model, and everything it was wired from."""

    def __init__(self, repository: Path, graph: Graph, *, near: bool = False) -> None:
        publish_bundle(repository, graph=graph)
        self.clock = JumpingClock()
        self.settings = load_settings(models={"repository": repository})
        now_s = self.clock.wall_s()
        self.rows = {**user_rows(SCHEMA, ["42"], now_s), **item_rows(SCHEMA, ITEMS, now_s, PRICES)}
        self.store = MemoryStore(self.rows)
        self.telemetry = Telemetry(CollectorRegistry())
        registry = ModelRegistry()
        self.near = near_caches(self.settings.features, self.clock) if near else None
        model = load_current(repository, "films", self.settings, self.near)
        if self.near is not None:
            self.near.trust(self.near.prefixes)
        self.telemetry.serve(model.card, model.assembler.views)
        registry.publish([model])
        self.pipeline = RankPipeline(registry, self.store, self.telemetry, self.settings, self.clock)
        self.times = StageTimes(self.clock)

    def rank(
        self,
        items: Sequence[str] = ITEMS,
        user: str = "42",
        allowed_s: float = 0.25,
        top_k: int | None = None,
        fields: Mapping[int, Fields] | None = None,
    ) -> Slate:
        request = RankRequest("r", User(user), Candidates(items, fields or {}), top_k=top_k)
        deadline = Deadline(self.clock, self.clock.monotonic_s() + allowed_s)
        model = self.pipeline.find("films", None)
        return asyncio.run(self.pipeline.rank(model, request, deadline, self.times))

    def metric(self, name: str, **labels: str) -> float:
        return self.telemetry.registry.get_sample_value(name, labels) or 0.0
