from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rankd_training.data.history import Events, recent_before

# Few entities and times, so that ties and empty histories are common; values far beyond 32 bits.
events_lists = st.lists(
    st.tuples(st.integers(-2, 3), st.integers(-3, 5), st.integers(-(2**62), 2**62)), max_size=40
)
queries_lists = st.lists(st.tuples(st.integers(-3, 5), st.integers(-5, 7)), max_size=20)


def column(rows: Sequence[tuple[int, ...]], index: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([row[index] for row in rows], dtype=np.int64)


def recent(
    events: list[tuple[int, int, int]], queries: list[tuple[int, int]], length: int
) -> list[list[int]]:
    history = recent_before(
        Events(column(events, 0), column(events, 1), column(events, 2)),
        column(queries, 0),
        column(queries, 1),
        length=length,
    )
    history.validate(full=True)
    assert history.null_count == 0
    return [list(values or []) for values in history.to_pylist()]


@given(events_lists, queries_lists, st.integers(0, 6))
def test_history_equals_the_plain_loop(
    events: list[tuple[int, int, int]], queries: list[tuple[int, int]], length: int
) -> None:
    expected = []
    for asked, before in queries:
        earlier = [
            (time, row, value)
            for row, (entity, time, value) in enumerate(events)
            if entity == asked and time < before
        ]
        expected.append([value for *_, value in sorted(earlier, reverse=True)][:length])
    assert recent(events, queries, length) == expected


def test_events_of_one_moment_do_not_see_each_other() -> None:
    events = [(1, 10, 100), (1, 10, 101), (1, 11, 102)]
    assert recent(events, [(1, 10), (1, 11), (1, 12)], 5) == [[], [101, 100], [102, 101, 100]]


def test_an_entity_never_seen_has_an_empty_history() -> None:
    assert recent([(2, 1, 7)], [(1, 9), (3, 9)], 5) == [[], []]
