"""A batcher over one model, and what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from rankd_contract.schema_file import parse_schema
from rankd_contract.signature import ROW
from rankd_service.batching.batcher import Batcher
from rankd_service.batching.runs import Scored
from rankd_service.deadline import Deadline
from rankd_service.domain import Partition
from rankd_service.inference.cost import CostModel
from rankd_service.inference.loader import load_current
from rankd_service.settings import BatchingSettings
from rankd_service.settings_sources import load_settings
from rankd_service.telemetry import Telemetry
from tests.support.bundles import SCHEMA_TEXT, Graph, batch_of, publish_bundle, tensors_for
from tests.support.clock import JumpingClock

__all__ = ["SCHEMA", "Bench", "Tensors", "requests", "run", "settle"]

SCHEMA = parse_schema(SCHEMA_TEXT)
Tensors = dict[str, NDArray[Any]]


class Bench:
    """A batcher over one model, and what it counted."""

    def __init__(self, repository: Path, graph: Graph, **settings: float) -> None:
        publish_bundle(repository, graph=graph)
        self.model = load_current(repository, "films", load_settings(models={"repository": repository}))
        object.__setattr__(self.model, "cost", CostModel())
        self.clock, self.telemetry = JumpingClock(), Telemetry(CollectorRegistry())
        self.telemetry.serve(self.model.card, self.model.assembler.views)
        self.batcher = Batcher(BatchingSettings.model_validate(settings), 0.001, self.telemetry)

    def ask(
        self,
        tensors: Tensors,
        left_s: float = 1.0,
        *,
        company: bool = True,
        partition: Partition = Partition.LIVE,
    ) -> asyncio.Task[Scored]:
        deadline = Deadline(self.clock, self.clock.monotonic_s() + left_s)
        how: dict[str, Any] = {"company": company, "partition": partition}
        return asyncio.create_task(self.batcher.score(self.model, batch_of(tensors), deadline, **how))

    def alone(self, tensors: Tensors) -> NDArray[np.float32]:
        return self.model.score(batch_of(tensors), len(tensors[ROW]))

    def counted(self, what: str) -> list[float]:
        """How many batches there were, and the requests or rows in them."""
        values = (
            self.telemetry.registry.get_sample_value(f"rankd_batch_{what}_{end}", {"model": "films"})
            for end in ("count", "sum")
        )
        return [value or 0.0 for value in values]


def requests(sizes: Sequence[int]) -> list[Tensors]:
    return [tensors_for(SCHEMA, 1, size, seed=at) for at, size in enumerate(sizes)]


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario()

    asyncio.run(main())


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
