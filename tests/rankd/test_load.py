"""The load generator: it asks when it should, and counts from then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest

from rankd.load.arrivals import Arrivals, due_times
from rankd.load.bodies import drawn_bodies, zipf_shares
from rankd.load.picture import draw
from rankd.load.sender import LOST, Outcome, send_all
from rankd.load.summary import summarise

OK = b"HTTP/1.1 200 OK\r\nserver-timing: infer;dur=1.5, parse;dur=0.5\r\ncontent-length: 2\r\n\r\n{}"
SHED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}"


async def against(answer: Callable[[int], bytes | float], due_s: list[float]) -> list[Outcome]:
    """Load a server whose n-th answer is bytes, or so many seconds' silence of the whole server first."""
    count, serving = 0, set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                await reader.readexactly(length)
                told, count = answer(count), count + 1
                if isinstance(told, float):
                    await asyncio.sleep(told)
                    told = OK
                if not told:
                    break
                writer.write(told)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the generator is done
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/rank/m"
        outcomes = await send_all(url, [b"{}"], np.array(due_s), {}, patience_s=1.0)
        await asyncio.gather(*serving)
        return outcomes


def test_requests_are_due_evenly_or_as_independent_callers_send_them() -> None:
    even = due_times(Arrivals.CONSTANT, 50, 2, seed=1)
    assert len(even) == 100
    assert np.allclose(np.diff(even), 0.02)
    random = due_times(Arrivals.POISSON, 500, 20, seed=1)
    assert 9_500 < len(random) < 10_500
    assert random.max() < 20
    gaps = np.diff(random)
    assert 0.9 < gaps.std() / gaps.mean() < 1.1, "as exponential gaps are"
    assert np.array_equal(random, due_times(Arrivals.POISSON, 500, 20, seed=1))


def test_drawn_requests_hold_different_items_the_first_of_the_list_most_often() -> None:
    items = [str(i) for i in range(1000)]
    bodies = drawn_bodies(["u"], items, 50, zipf=1.1, count=200, seed=1, settings={"top_k": 3})
    asked = [json.loads(body) for body in bodies]
    assert all(len(set(one["item_ids"])) == 50 for one in asked)
    assert all((one["user"], one["top_k"]) == ("u", 3) for one in asked)
    counts = np.bincount([int(i) for one in asked for i in one["item_ids"]], minlength=1000)
    assert counts[0] > counts[500:].max()
    assert zipf_shares(10, 0).tolist() == pytest.approx([0.1] * 10)


def test_every_request_leaves_when_it_is_due_whatever_became_of_those_before() -> None:
    outcomes = asyncio.run(against(lambda n: 0.3, [0.01 * i for i in range(20)]))
    assert [o.status for o in outcomes] == [200] * 20
    assert max(o.sent_s - o.due_s for o in outcomes) < 0.2
    assert max(o.done_s for o in outcomes) < 1.0, "a closed loop would have taken six seconds"


def test_outcomes_are_told_apart() -> None:
    told = {0: OK, 1: SHED, 2: b""}
    outcomes = asyncio.run(against(lambda n: told[n], [0.0, 0.1, 0.2]))
    assert [o.status for o in outcomes] == [200, 503, LOST]
    summary = summarise(outcomes, rate=10, seconds=0.3, deadline_ms=250)
    assert summary.statuses == {"lost": 1, "200": 1, "503": 1}
    assert summary.requests == 3
    assert summary.in_time == pytest.approx(1 / 3)
    assert summary.stages_ms["infer"]["p50"] == 1.5


def test_a_service_that_is_not_there_is_lost_requests_and_no_exception() -> None:
    outcomes = asyncio.run(send_all("http://127.0.0.1:9/x", [b"{}"], np.array([0.0, 0.01]), {}, 0.5))
    assert [o.status for o in outcomes] == [LOST, LOST]


def test_what_was_late_or_degraded_is_counted_as_such() -> None:
    outcomes = [
        Outcome(0.0, 0.0, 0.010, 200),
        Outcome(0.0, 0.0, 0.300, 200),
        Outcome(0.0, 0.0, 0.010, 200, degraded="store_down, inference_late"),
        Outcome(0.0, 0.0, 0.001, 503),
    ]
    summary = summarise(outcomes, rate=4, seconds=1, deadline_ms=250)
    assert (summary.goodput, summary.in_time) == (2, 0.5)
    assert summary.degraded == {"any": 0.25, "store_down": 0.25, "inference_late": 0.25}
    assert summary.slack_ms["p0.1"] < 0 < summary.slack_ms["p50"]


def test_the_picture_is_a_document_of_its_own() -> None:
    outcomes = [Outcome(0.1 * i, 0.1 * i, 0.1 * i + 0.02, 200 if i % 3 else 503) for i in range(50)]
    drawn = draw(outcomes, "10 <requests> & more", 250)
    tree = ElementTree.fromstring(drawn)  # our own
    assert tree.tag.endswith("svg")
    assert "http" not in "".join(tree.itertext())
