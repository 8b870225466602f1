"""Long batch requests are scored in pieces while there are live ones, which wait for a piece at most."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rankd_service.batching.runs import Scored
from rankd_service.domain import Partition
from rankd_service.errors import DeadlineExceeded
from rankd_service.inference.batch import Batch
from rankd_service.inference.cost import CostModel
from tests.service.batching.batcher_bench import Bench, Tensors, requests, run
from tests.support.bundles import batch_of, echo

ROW_S, PIECE_ROWS = 0.001, 20


class Watched(Bench):
    """A bench on which a row takes a millisecond of its clock, that knows how many rows each run had."""

    def __init__(self, repository: Path) -> None:
        super().__init__(repository, echo, piece_ms=1000 * ROW_S * (PIECE_ROWS + 0.5))
        object.__setattr__(self.model, "cost", CostModel([(1, ROW_S), (100, 100 * ROW_S)]))
        self.runs: list[int] = []
        self.scorer, self.fails_at, self.ran = self.model.scorer, 0, asyncio.Event()
        object.__setattr__(self.model, "scorer", self)

    def score(self, batch: Batch) -> NDArray[np.float32]:
        """Stand before the model's own scorer."""
        self.runs.append(len(batch))
        self.clock.jump(ROW_S * len(batch))
        self.ran.set()
        if len(self.runs) == self.fails_at:
            raise RuntimeError("the runtime said no")
        return self.scorer.score(batch)

    async def after(self, runs: int) -> None:
        """Wait until there were so many runs."""
        while len(self.runs) < runs:
            self.ran.clear()
            await self.ran.wait()

    def exact(self, tensors: Tensors) -> NDArray[np.float32]:
        """Score without a trace."""
        return self.model.calibration(self.scorer.score(batch_of(tensors)))

    def batch(self, tensors: Tensors, left_s: float = 60.0) -> asyncio.Task[Scored]:
        return self.ask(tensors, left_s, partition=Partition.BATCH)

    async def live(self, rows: int = 3) -> Scored:
        (tensors,) = requests([rows])
        return await self.ask(tensors, 60.0, company=False)


def test_a_live_request_waits_for_a_piece_and_not_for_the_whole(tmp_path: Path) -> None:
    bench = Watched(tmp_path)
    long, short = requests([400, 3])

    async def scenario() -> None:
        await bench.live()
        bench.runs.clear()
        task = bench.batch(long)
        await bench.after(4)
        await bench.ask(short, 60.0)
        assert bench.runs == [PIECE_ROWS] * 4 + [3], "it was the next to be scored"
        scored = await task
        assert bench.runs[5:] == [PIECE_ROWS] * 16
        assert scored.rows == 400
        assert (scored.scores_NT == bench.exact(long)).all()

    run(scenario)


def test_where_there_are_no_live_ones_nothing_is_cut(tmp_path: Path) -> None:
    bench = Watched(tmp_path)
    (long,) = requests([400])

    async def scenario() -> None:
        await bench.batch(long)
        await bench.live()
        bench.clock.jump(2.0)  # and nobody came any more
        await bench.batch(long)

    run(scenario)
    assert bench.runs == [400, 3, 400]


def test_pieces_are_of_one_size(tmp_path: Path) -> None:
    bench = Watched(tmp_path)

    async def scenario() -> None:
        await bench.live()
        await bench.batch(requests([PIECE_ROWS + 1])[0])

    run(scenario)
    assert bench.runs == [3, 11, 10], "and none of a single row"


def test_several_long_requests_take_turns_with_live_ones_and_are_never_mixed_up(tmp_path: Path) -> None:
    bench = Watched(tmp_path)
    asked = requests([130, 70, 250, 90])

    async def scenario() -> None:
        await bench.live()
        tasks = [bench.batch(tensors) for tensors in asked]
        while not all(task.done() for task in tasks):
            await bench.live()
        for tensors, task in zip(asked, tasks, strict=True):
            assert (task.result().scores_NT == bench.exact(tensors)).all()

    run(scenario)


def test_what_there_is_no_time_for_follows_unscored(tmp_path: Path) -> None:
    bench = Watched(tmp_path)
    (long,) = requests([400])

    async def scenario() -> None:
        await bench.live()
        scored = await bench.batch(long, left_s=0.2)
        assert 2 * PIECE_ROWS < scored.rows < 200
        assert (scored.scores_NT[: scored.rows] == bench.exact(long)[: scored.rows]).all()
        assert (scored.scores_NT[scored.rows :] == bench.model.prior_T).all()

    run(scenario)


def test_whose_deadline_passes_between_two_pieces_is_told_so(tmp_path: Path) -> None:
    bench = Watched(tmp_path)

    async def scenario() -> None:
        await bench.live()
        task = bench.batch(requests([400])[0], left_s=5.0)
        await bench.after(3)
        bench.clock.jump(6.0)
        with pytest.raises(DeadlineExceeded):
            await task

    run(scenario)
    assert bench.runs == [3, PIECE_ROWS, PIECE_ROWS]


def test_who_runs_out_of_time_between_two_pieces_is_answered_with_what_was_scored(tmp_path: Path) -> None:
    bench = Watched(tmp_path)
    (long,) = requests([400])

    async def scenario() -> None:
        await bench.live()
        task = bench.batch(long, left_s=5.0)
        await bench.after(3)
        bench.clock.jump(4.958)  # what is left is too little for a row and the answer
        scored = await task
        assert scored.rows == 2 * PIECE_ROWS
        assert (scored.scores_NT[: scored.rows] == bench.exact(long)[: scored.rows]).all()
        assert (scored.scores_NT[scored.rows :] == bench.model.prior_T).all()

    run(scenario)
    assert bench.runs == [3, PIECE_ROWS, PIECE_ROWS]


@pytest.mark.fault("E6")
def test_who_goes_away_between_two_pieces_is_not_scored_further(tmp_path: Path) -> None:
    bench = Watched(tmp_path)

    async def scenario() -> None:
        await bench.live()
        task = bench.batch(requests([400])[0])
        await bench.after(3)
        task.cancel()
        await bench.live()

    run(scenario)
    assert bench.runs == [3, PIECE_ROWS, PIECE_ROWS, 3]


def test_a_piece_that_cannot_be_scored_fails_its_request_alone(tmp_path: Path) -> None:
    bench = Watched(tmp_path)
    bad, good = requests([100, 100])

    async def scenario() -> None:
        await bench.live()
        first, second = bench.batch(bad), bench.batch(good)
        bench.fails_at = 4  # the third piece of the first
        with pytest.raises(RuntimeError, match="said no"):
            await first
        assert ((await second).scores_NT == bench.exact(good)).all()

    run(scenario)
