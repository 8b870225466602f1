"""Writes the answer to a ranking request: the one place where a slate becomes bytes.

The items are joined from columns of bytes, not built as objects: at 500 candidates this takes 120 us where
dictionaries take 260 us, and those set off the garbage collector in the middle of requests. Numbers keep
the shortest digits that give back the same float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from rankd_contract.packing import FeatureStatus
from rankd_contract.schema import Entity
from rankd_service.domain import RankRequest, Slate, Stage
from rankd_service.settings import MOST_CANDIDATES

__all__ = ["encode_slate"]

_CLOSING = tuple(b'},"status":"%b"}' % s.name.encode() for s in FeatureStatus)
_PRESENT = b"}}"
_RANKS = tuple(b'","rank":%d,"score":' % place for place in range(MOST_CANDIDATES + 1))


def encode_slate(
    request: RankRequest, slate: Slate, took_s: float, timing: Mapping[Stage, float] | None
) -> bytes:
    """Write the answer as JSON; `timing` is left out where it is None."""
    head = {
        "id": request.id,
        "model": slate.model.name,
        "version": slate.model.version,
        "took_ms": round(took_s * 1000, 3),
    }
    tail: dict[str, Any] = {
        "degraded": [
            {"stage": d.stage, "rung": d.rung, "reason": d.reason, "affected": d.affected}
            for d in slate.degraded
        ],
        "feature_status": {e.value: _counts(slate.statuses[e]) for e in (Entity.USER, Entity.ITEM)},
    }
    if timing is not None:
        tail["timing"] = {stage.value: round(spent_s * 1000, 3) for stage, spent_s in timing.items()}
    items = _items(request.candidates.ids, slate)
    return b'%b,"items":[%b],%b' % (orjson.dumps(head)[:-1], items, orjson.dumps(tail)[1:])


def _items(ids: Sequence[str], slate: Slate) -> bytes:
    order, tasks = slate.order.tolist(), slate.model.tasks
    n, columns = len(order), []
    columns.append([b',{"id":"'] * n)
    columns.append(_texts([ids[at] for at in order]))
    columns.append([_RANKS[place] for place in slate.ranks.tolist()])
    columns.append(_numbers(slate.scores))
    for task, name in enumerate(tasks):
        columns.append([(b"," if task else b',"scores":{') + orjson.dumps(name) + b":"] * n)
        columns.append(_numbers(slate.task_scores_KT[:, task]))
    closings = _closings(slate.statuses[Entity.ITEM][slate.order])
    if slate.scored < len(ids):
        ends = zip(order, closings, strict=True)
        closings = [end if at < slate.scored else b'},"scored":false' + end[1:] for at, end in ends]
    columns.append(closings)
    pieces = [b""] * (n * len(columns))
    for at, column in enumerate(columns):
        pieces[at :: len(columns)] = column
    return b"".join(pieces)[1:]


def _texts(texts: list[str]) -> list[bytes]:
    """Return JSON strings without their quotes."""
    encoded = orjson.dumps(texts)
    if b"\\" in encoded:  # only then can a quote stand inside a string, and the split below be wrong
        return [orjson.dumps(text)[1:-1] for text in texts]
    return encoded[2:-2].split(b'","')


def _numbers(values: NDArray[Any]) -> list[bytes]:
    return orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")


def _closings(statuses: NDArray[np.uint8]) -> list[bytes]:
    if not statuses.any():
        return [_PRESENT] * len(statuses)
    return [_CLOSING[status] if status else _PRESENT for status in statuses.tolist()]


def _counts(statuses: NDArray[np.uint8]) -> dict[str, int]:
    counts = np.bincount(statuses, minlength=len(FeatureStatus)).tolist()
    return {status.name: counts[status] for status in FeatureStatus if counts[status]}
