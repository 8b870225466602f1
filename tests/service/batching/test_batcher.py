"""Letter E of the fault matrix, row 6, and what else a batch must never do to those in it."""

from __future__ import annotations

import asyncio
import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from rankd_contract.signature import ROW
from rankd_service.batching.runs import Scored
from rankd_service.domain import Partition
from rankd_service.errors import DeadlineExceeded
from rankd_service.inference.cost import CostModel
from tests.service.batching.batcher_bench import SCHEMA, Bench, Tensors, requests, run, settle
from tests.support.bundles import BUCKETS, Graph, echo, mlp, table, tensors_for

SUBSETS = [gone for size in range(6) for gone in itertools.combinations(range(5), size)]
# After so many turns of the loop the members go: before they joined, as they wait, when all is done.
MOMENTS = (0, 1, 2, 3)


@pytest.mark.fault("E6")
@pytest.mark.parametrize(("graph", "apart"), [(echo, 0.0), (mlp(32, 2), 1e-6)], ids=["echo", "mlp"])
def test_whoever_of_a_batch_goes_away_the_others_get_their_own_scores(
    tmp_path: Path, graph: Graph, apart: float
) -> None:
    """All 32 subsets of five at four moments; where nothing is multiplied by a matrix, to the last bit."""
    bench = Bench(tmp_path, graph)
    asked = requests([3, 1, 5, 2, 4])
    exact = [bench.alone(tensors) for tensors in asked]

    async def scenario() -> None:
        for gone, turns in itertools.product(SUBSETS, MOMENTS):
            tasks = [bench.ask(tensors) for tensors in asked]
            for _ in range(turns):
                await asyncio.sleep(0)
            for at in gone:
                tasks[at].cancel()
            await settle()
            for at, task in enumerate(tasks):
                assert task.done(), f"{at} waits for ever after {gone} went at turn {turns}"
                if at in gone and task.cancelled():
                    continue
                assert np.abs(task.result().scores_NT - exact[at]).max() <= apart
            assert not bench.batcher._waiting

    run(scenario)


@pytest.mark.fault("E6")
def test_who_has_gone_before_the_run_is_not_computed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, echo)

    async def scenario() -> None:
        tasks = [bench.ask(tensors) for tensors in requests([3, 1, 5])]
        await asyncio.sleep(0)
        tasks[2].cancel()
        await settle()
        assert (bench.counted("requests"), bench.counted("rows")) == ([1, 2], [1, 4])
        everybody = [bench.ask(tensors) for tensors in requests([3, 1])]
        await asyncio.sleep(0)
        for task in everybody:
            task.cancel()
        await settle()
        assert bench.counted("requests") == [1, 2]

    run(scenario)


def test_random_requests_in_random_turns_are_never_mixed_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path, echo, max_rows=40)
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    asked = requests([rng.randrange(1, 80) for _ in range(300)])

    async def scenario() -> None:
        tasks = []
        for tensors in asked:
            tasks.append(bench.ask(tensors, left_s=rng.uniform(0.1, 2), company=rng.random() < 0.8))
            for _ in range(rng.choice([0, 0, 0, 1, 2])):
                await asyncio.sleep(0)
        for tensors, scored in zip(asked, await asyncio.gather(*tasks), strict=True):
            assert (scored.scores_NT == bench.alone(tensors)).all(), f"seed {seed}"
            assert scored.rows == len(tensors[ROW])

    run(scenario)
    batches, together = bench.counted("requests")
    assert together > batches > 10


def test_requests_of_several_users_are_joined_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path, echo)
    asked = [tensors_for(SCHEMA, users, 7, seed=users) for users in (3, 1, 2)]

    async def scenario() -> None:
        for tensors, scored in zip(asked, await asyncio.gather(*map(bench.ask, asked)), strict=True):
            assert (scored.scores_NT == bench.alone(tensors)).all()

    run(scenario)
    assert bench.counted("requests") == [1, 3]


def test_one_request_that_cannot_be_scored_fails_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path, table)
    asked = requests([3, 2, 4])
    asked[1]["in_item_ids"][1, 0] = 2 * BUCKETS  # beyond the table: the runtime refuses the whole run

    async def scenario() -> None:
        tasks = [bench.ask(tensors) for tensors in asked]
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(found[1], Exception)
        for at in (0, 2):
            scored = found[at]
            assert isinstance(scored, Scored)
            assert (scored.scores_NT == bench.alone(asked[at])).all()

    run(scenario)


@pytest.mark.parametrize(
    ("sizes", "settings", "company"),
    [([3], {}, False), ([51, 51], {}, True), ([3, 3], {"max_candidates": 0}, True)],
    ids=["nobody else", "many candidates", "switched off"],
)
def test_alone_a_request_is_scored_at_once(
    tmp_path: Path, sizes: list[int], settings: dict[str, int], company: bool
) -> None:
    bench = Bench(tmp_path, echo, **settings)

    async def scenario() -> None:
        for tensors in requests(sizes):
            task = bench.ask(tensors, company=company)
            await asyncio.sleep(0)
            assert task.done(), "it waited for a turn"
            await settle()

    run(scenario)
    assert bench.counted("requests") == [0, 0]


def test_between_two_runs_the_loop_does_what_else_there_is(tmp_path: Path) -> None:
    """Whoever comes while requests are scored is heard after one run, not after all of them."""
    bench = Bench(tmp_path, echo)
    log: list[str] = []

    async def one(at: int, tensors: Tensors) -> None:
        await bench.ask(tensors)
        log.append(f"answer {at}")

    async def others() -> None:
        """What takes a turn for each of its steps: a head is read, its task begins, it asks the store."""
        while len(log) < 20:
            await asyncio.sleep(0)
            log.append("other")

    async def scenario() -> None:
        tasks = [asyncio.create_task(one(at, t)) for at, t in enumerate(requests([60, 70, 80, 90]))]
        await asyncio.gather(others(), *tasks)

    run(scenario)
    answers = [at for at, what in enumerate(log) if what.startswith("answer")]
    assert [log[at] for at in answers] == ["answer 0", "answer 1", "answer 2", "answer 3"]
    assert all("other" in log[a:b] for a, b in itertools.pairwise(answers))


def test_live_requests_go_first_and_batch_ones_are_not_forgotten(tmp_path: Path) -> None:
    bench = Bench(tmp_path, echo)
    order: list[Partition] = []

    async def one(tensors: Tensors, partition: Partition, left_s: float) -> None:
        await bench.ask(tensors, left_s, partition=partition)
        order.append(partition)

    async def scenario() -> None:
        (tensors,) = requests([60])
        batch = [one(tensors, Partition.BATCH, 1.0) for _ in range(4)]
        live = [one(tensors, Partition.LIVE, 5.0) for _ in range(30)]
        await asyncio.gather(*batch, *live)

    run(scenario)
    # The very first was alone when it came, and was scored at once.
    assert [at for at, partition in enumerate(order) if partition is Partition.BATCH] == [0, 10, 20, 30]


def test_of_those_who_wait_the_earliest_deadline_goes_first(tmp_path: Path) -> None:
    bench = Bench(tmp_path, echo)
    left_s, order = [9.0, 3.0, 7.0, 1.0, 5.0], list[float]()

    async def one(tensors: Tensors, left_s: float) -> None:
        await bench.ask(tensors, left_s)
        order.append(left_s)

    async def scenario() -> None:
        await asyncio.gather(*(one(t, s) for t, s in zip(requests([60] * 5), left_s, strict=True)))

    run(scenario)
    assert order == [9.0, 1.0, 3.0, 5.0, 7.0], "but for the first, who was alone"


def test_a_batch_is_closed_by_rows(tmp_path: Path) -> None:
    bench = Bench(tmp_path, echo, max_rows=10)

    async def scenario() -> None:
        await asyncio.gather(*map(bench.ask, requests([4, 4, 4, 4, 10, 1])))

    run(scenario)
    assert (bench.counted("requests"), bench.counted("rows")) == ([4, 6], [4, 27])


def test_a_batch_is_closed_by_its_earliest_deadline(tmp_path: Path) -> None:
    """At 10 ms a row, 0.1 s are enough for 7 rows: others wait for whom they would make late."""
    bench = Bench(tmp_path, echo)
    order: list[int] = []

    async def one(at: int, tensors: Tensors, left_s: float) -> int:
        scored = await bench.ask(tensors, left_s)
        order.append(at)
        return scored.rows

    async def scenario() -> None:
        object.__setattr__(bench.model, "cost", CostModel([(0, 0.0), (100, 1.0)]))
        sizes, left_s = [4, 4, 3, 5], [9.0, 8.0, 0.1, 7.0]
        asked = zip(itertools.count(), requests(sizes), left_s, strict=False)
        rows = await asyncio.gather(*(one(*given) for given in asked))
        assert rows == sizes, "everybody had the time"

    run(scenario)
    assert order[0] == 2, "the earliest deadline goes first, and alone: three rows and five are too many"
    assert bench.counted("requests") == [2, 4]


@pytest.mark.fault("E5")
def test_whose_deadline_passes_while_others_are_scored_is_told_so_and_not_scored(tmp_path: Path) -> None:
    bench = Bench(tmp_path, echo)

    async def scenario() -> None:
        first, patient, hasty = requests([60, 60, 60])
        waits = [bench.ask(first, 5.0), bench.ask(patient, 5.0), bench.ask(hasty, 0.5)]
        await asyncio.sleep(0)
        bench.clock.jump(1.0)  # what the others before it took
        found = await asyncio.gather(*waits, return_exceptions=True)
        assert isinstance(found[2], DeadlineExceeded)
        assert [isinstance(one, Scored) for one in found] == [True, True, False]

    run(scenario)


@pytest.mark.fault("E8")
def test_in_a_batch_too_what_there_is_no_time_for_is_left_unscored(tmp_path: Path) -> None:
    bench = Bench(tmp_path, echo)

    async def scenario() -> None:
        object.__setattr__(bench.model, "cost", CostModel([(0, 0.0), (100, 1.0)]))
        asked = requests([10, 2])
        late, fine = await asyncio.gather(bench.ask(asked[0], 0.05), bench.ask(asked[1], 5.0))
        assert 0 < late.rows < 10
        assert (late.scores_NT[: late.rows] == bench.alone(asked[0])[: late.rows]).all()
        assert (late.scores_NT[late.rows :] == bench.model.prior_T).all()
        assert (fine.scores_NT == bench.alone(asked[1])).all()

    run(scenario)


def test_two_models_share_no_run(tmp_path: Path) -> None:
    bench, other = Bench(tmp_path / "a", echo), Bench(tmp_path / "b", mlp(8, 1))

    async def scenario() -> None:
        first, second = requests([3, 3])
        tasks = [bench.ask(first)]
        bench.model, kept = other.model, bench.model
        tasks.append(bench.ask(second))
        bench.model = kept
        one, two = await asyncio.gather(*tasks)
        assert (one.scores_NT == bench.alone(first)).all()
        assert (two.scores_NT == other.alone(second)).all()

    run(scenario)
    assert bench.counted("requests") == [2, 2]
