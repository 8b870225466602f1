from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankd_contract.encoding import Block
from rankd_service.features.near_cache import NearCache, NearLimits
from rankd_service.features.near_caches import NearCaches
from rankd_service.features.view_rows import ViewRows
from tests.support.clock import JumpingClock

TTL_S, STALE_S = 60.0, 600.0
BYTES_A_ROW = 4 * (2 + 1) + 200


def a_cache(capacity: int = 100, clock: JumpingClock | None = None, word_s: float = np.inf) -> NearCache:
    limits = NearLimits(capacity * BYTES_A_ROW, TTL_S, STALE_S, word_s)
    cache = NearCache(2, 1, limits, clock or JumpingClock())
    cache.trust()
    return cache


def rows_of(ids: Sequence[str], generation: int = 0) -> ViewRows:
    """Rows that say whose they are, and of which generation."""
    numbers = np.array([int(i) for i in ids])
    ids_n2 = np.stack([numbers, np.full(len(ids), generation)], axis=1).astype(np.int32)
    block = Block(ids_n2, (numbers[:, None] / 2).astype(np.float32))
    return ViewRows(block, 1000 * numbers + generation, np.zeros(len(ids), np.int64))


def empty(n: int) -> ViewRows:
    """Room for rows, and nothing that could be taken for one."""
    block = Block(np.full((n, 2), -1, np.int32), np.full((n, 1), np.nan, np.float32))
    return ViewRows(block, np.full(n, -1), np.zeros(n, np.int64))


def keep(cache: NearCache, ids: Sequence[str], generation: int = 0, mark: int | None = None) -> None:
    cache.keep(ids, rows_of(ids, generation), cache.mark() if mark is None else mark)


def taken(cache: NearCache, ids: Sequence[str], *, stale: bool = False) -> dict[str, int]:
    """What is near at hand: generation by id. Every row is checked to be its own id's."""
    rows = empty(len(ids))
    out = rows.block
    absent = (cache.take_stale if stale else cache.take)(ids, rows)
    here = np.setdiff1d(np.arange(len(ids)), absent)
    assert absent.tolist() == sorted(absent.tolist())
    assert (out.ids[absent] == -1).all(), "rows that are not here are left as they were"
    found = {}
    for at in here.tolist():
        number, generation = out.ids[at].tolist()
        assert (number, out.values[at, 0], rows.times_ms[at]) == (
            int(ids[at]),
            int(ids[at]) / 2,
            1000 * int(ids[at]) + generation,
        )
        found[ids[at]] = generation
    return found


def test_rows_that_were_kept_are_taken_and_the_others_named() -> None:
    cache = a_cache()
    keep(cache, ["1", "3"])
    assert taken(cache, ["0", "1", "2", "3"]) == {"1": 0, "3": 0}
    assert (cache.hits, cache.misses, len(cache)) == (2, 2, 2)


def test_a_row_kept_again_replaces_the_one_before() -> None:
    cache = a_cache()
    keep(cache, ["1", "2"])
    keep(cache, ["2", "3"], generation=1)
    assert taken(cache, ["1", "2", "3"]) == {"1": 0, "2": 1, "3": 1}
    assert len(cache) == 3


def stamps(cache: NearCache, ids: Sequence[str]) -> list[int]:
    rows = empty(len(ids))
    cache.take(ids, rows)
    found: list[int] = rows.stamps.tolist()
    return found


def test_a_row_is_known_by_a_stamp_that_no_other_ever_has() -> None:
    cache = a_cache(20)
    seen: set[int] = set()
    for generation in range(30):
        ids = [str(i) for i in range(generation, generation + 10)]
        given = cache.keep(ids, rows_of(ids, generation), cache.mark()).tolist()
        assert stamps(cache, ids) == given
        assert 0 not in given
        assert not seen & set(given)
        seen |= set(given)
    mark = cache.mark()
    cache.drop(["31"])
    assert cache.keep(["31", "32"], rows_of(["31", "32"]), mark).tolist() == [0, *stamps(cache, ["32"])]
    assert stamps(cache, ["31"]) == [0]


def test_a_rows_time_runs_out_and_not_for_all_at_once() -> None:
    clock = JumpingClock()
    cache, ids = a_cache(1000, clock), [str(i) for i in range(1000)]
    keep(cache, ids)
    clock.jump(0.89 * TTL_S)
    assert len(taken(cache, ids)) == 1000
    clock.jump(0.06 * TTL_S)
    assert 300 < len(taken(cache, ids)) < 700
    clock.jump(0.06 * TTL_S)
    assert taken(cache, ids) == {}


def test_a_row_that_changed_is_gone() -> None:
    cache = a_cache()
    keep(cache, ["1", "2"])
    cache.drop(["2", "7"])
    assert taken(cache, ["1", "2"]) == {"1": 0}


def test_a_row_that_changed_on_its_way_here_is_not_kept() -> None:
    cache = a_cache()
    mark = cache.mark()
    cache.drop(["2"])
    keep(cache, ["1", "2"], mark=mark)
    assert taken(cache, ["1", "2"]) == {"1": 0}
    keep(cache, ["2"], generation=1)
    assert taken(cache, ["2"]) == {"2": 1}


@pytest.mark.parametrize("forget", [NearCache.clear, NearCache.trust])
def test_nothing_read_before_everything_was_forgotten_is_kept(forget: object) -> None:
    cache = a_cache()
    keep(cache, ["1"])
    mark = cache.mark()
    assert callable(forget)
    forget(cache)
    keep(cache, ["1", "2"], mark=mark)
    assert taken(cache, ["1", "2"]) == {}


def test_more_changes_than_are_remembered_keep_out_every_row_on_its_way() -> None:
    cache = a_cache()
    mark = cache.mark()
    cache.drop([str(i) for i in range(100, 20_000)])
    keep(cache, ["1"], mark=mark)
    assert taken(cache, ["1"]) == {}
    keep(cache, ["1"])
    assert taken(cache, ["1"]) == {"1": 0}


@pytest.mark.fault("A16")
def test_without_word_of_changes_nothing_is_fresh_but_may_stand_in_for_a_while() -> None:
    clock = JumpingClock()
    cache = a_cache(clock=clock)
    keep(cache, ["1"])
    cache.distrust()
    assert taken(cache, ["1"]) == {}
    assert taken(cache, ["1"], stale=True) == {"1": 0}
    keep(cache, ["2"])
    assert taken(cache, ["2"], stale=True) == {}, "nothing is kept that nobody would tell the change of"
    clock.jump(TTL_S + STALE_S)
    assert taken(cache, ["1"], stale=True) == {}


@pytest.mark.fault("A16")
def test_a_word_that_is_too_old_is_no_word_until_the_next() -> None:
    clock = JumpingClock()
    cache = a_cache(clock=clock, word_s=1.0)
    keep(cache, ["1"])
    clock.jump(0.9)
    assert taken(cache, ["1"]) == {"1": 0}
    clock.jump(0.2)
    assert taken(cache, ["1"]) == {}, "changes may be on their way, unheard"
    assert taken(cache, ["1"], stale=True) == {"1": 0}
    cache.confirm(clock.monotonic_s() - 0.5)
    assert taken(cache, ["1"]) == {"1": 0}
    clock.jump(0.6)
    assert taken(cache, ["1"]) == {}


@pytest.mark.fault("A16")
def test_once_word_comes_again_what_was_known_before_is_not_fresh_but_may_stand_in() -> None:
    """The store's readers may take a moment longer to come back than the word of its changes."""
    cache = a_cache()
    begun = cache.mark()
    keep(cache, ["1", "2"])
    cache.distrust()
    cache.trust()
    assert taken(cache, ["1", "2"]) == {}
    assert taken(cache, ["1", "2"], stale=True).keys() == {"1", "2"}
    keep(cache, ["1"])
    assert taken(cache, ["1", "2"]).keys() == {"1"}
    assert begun < cache.mark(), "a read that began before is not kept"


def test_space_is_bounded_and_rows_in_use_stay() -> None:
    cache, hot = a_cache(100), [str(i) for i in range(40)]
    keep(cache, hot)
    for start in range(100, 1100, 50):
        assert len(taken(cache, hot)) == 40
        keep(cache, [str(i) for i in range(start, start + 50)])
        assert len(cache) <= 100
    assert len(taken(cache, hot)) == 40


def test_more_rows_than_there_is_space_for_are_no_error() -> None:
    cache = a_cache(10)
    keep(cache, [str(i) for i in range(25)])
    assert len(cache) == 10
    assert len(taken(cache, [str(i) for i in range(25)])) == 10


def test_no_space_keeps_nothing() -> None:
    cache = a_cache(0)
    keep(cache, ["1"])
    assert taken(cache, ["1"]) == {}
    assert NearCaches(NearLimits(0, TTL_S, STALE_S, 1.0), JumpingClock()).prefixes == []


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["keep", "take", "drop", "clear", "mark", "keep_since"]),
        st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, capacity=st.integers(1, 20))
def test_it_never_answers_a_row_that_is_not_the_latest(
    steps: list[tuple[str, list[int]]], capacity: int
) -> None:
    cache = a_cache(capacity)
    truth = dict.fromkeys(range(31), 0)  # the generation the store holds
    mark, seen = cache.mark(), dict(truth)
    for step, numbers in steps:
        ids = [str(i) for i in numbers]
        if step == "keep":
            for generation in {truth[i] for i in numbers}:
                keep(cache, [str(i) for i in numbers if truth[i] == generation], generation)
        elif step == "mark":
            mark, seen = cache.mark(), dict(truth)
        elif step == "keep_since":  # a read that began at the mark and saw the store as it was then
            for generation in {seen[i] for i in numbers}:
                keep(cache, [str(i) for i in numbers if seen[i] == generation], generation, mark)
        elif step == "drop":
            truth |= {i: truth[i] + 1 for i in numbers}
            cache.drop(ids)
        elif step == "clear":
            truth = {i: generation + 1 for i, generation in truth.items()}
            cache.clear()
        assert taken(cache, ids).items() <= {str(i): truth[i] for i in numbers}.items()
        assert len(cache) <= capacity


def test_changes_reach_the_cache_of_their_prefix_alone() -> None:
    caches = NearCaches(NearLimits(1 << 20, TTL_S, STALE_S, 1.0), JumpingClock())
    films, books = caches.of("rankd:film:1:", 2, 1), caches.of("rankd:book:1:", 2, 1)
    assert caches.of("rankd:film:1:", 2, 1) is films
    caches.trust(caches.prefixes)
    for cache in caches:
        keep(cache, ["1", "2"])
    caches.changed([b"rankd:film:1:1", b"rankd:user:1:2", b"rankd:film:1:\xff"])
    assert (taken(films, ["1", "2"]), taken(books, ["1", "2"])) == ({"2": 0}, {"1": 0, "2": 0})
    caches.changed(None)
    assert (taken(films, ["1", "2"]), taken(books, ["1", "2"])) == ({}, {})
