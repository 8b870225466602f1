"""What was known of an entity just before a moment: its most recent values, as of that moment.

Vectorised, no loop over events. An event at the very time of the query is not seen: data that happened
together must not explain itself. Legend: N events, Q queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Events:
    """N events in any order: at `time`, `entity` did something with `value`.

    Events of one entity at one time are ordered by position, the later row counting as newer.
    """

    entity: IntArray
    time: IntArray
    value: IntArray


def recent_before(events: Events, entity_Q: IntArray, time_Q: IntArray, *, length: int) -> pa.ListArray[Any]:
    """For each query, the entity's values strictly before its time: newest first, at most `length`.

    Returns:
        Q lists of int64; empty where the entity has no earlier event.
    """
    order_N = np.lexsort((events.time, events.entity))
    value_N = events.value[order_N]
    entities_E, entity_code_N = np.unique(events.entity[order_N], return_inverse=True)
    times_T, time_code_N = np.unique(events.time[order_N], return_inverse=True)
    # One sorted key per event, entity first. A query's time becomes the number of known times before it, so
    # the insertion point of (entity, that number) is where the entity's earlier events end.
    num_times = len(times_T) + 1
    key_N = entity_code_N * num_times + time_code_N
    entity_code_Q = np.searchsorted(entities_E, entity_Q)
    known_Q = np.zeros(len(entity_Q), dtype=bool)
    in_range_Q = entity_code_Q < len(entities_E)
    known_Q[in_range_Q] = entities_E[entity_code_Q[in_range_Q]] == entity_Q[in_range_Q]
    first_key_Q = entity_code_Q * num_times
    end_Q = np.searchsorted(key_N, first_key_Q + np.searchsorted(times_T, time_Q))
    start_Q = np.searchsorted(key_N, first_key_Q)
    taken_Q = np.where(known_Q, np.minimum(end_Q - start_Q, length), 0)

    offset_Q1 = np.concatenate(([0], np.cumsum(taken_Q)))
    age = np.arange(offset_Q1[-1]) - np.repeat(offset_Q1[:-1], taken_Q)
    newest_first = value_N[np.repeat(end_Q, taken_Q) - 1 - age]
    return pa.ListArray.from_arrays(
        pa.array(offset_Q1, type=pa.int32()), pa.array(newest_first, type=pa.int64())
    )
