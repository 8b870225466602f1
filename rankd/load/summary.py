"""What a run of load showed: latency, goodput, stages, slack, and what was less than perfect."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rankd.load.sender import LOST, NOT_SENT, Outcome

__all__ = ["PERCENTILES", "Summary", "summarise"]

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
_OK = 200


@dataclass(frozen=True, slots=True)
class Summary:
    """One rate's figures. Times are milliseconds; shares are of all requests that were due.

    `goodput` counts answers (200) within the deadline, a second; `slack_ms` is what was left of it, by
    percentile from below; `refused_ms` is how long it took to be sent away; `lag_ms` is how late the
    generator itself was, at its 99th percentile: where that is much, the rest says little.
    """

    rate: float
    seconds: float
    requests: int
    goodput: float
    in_time: float
    latency_ms: Mapping[str, float]
    refused_ms: Mapping[str, float]
    slack_ms: Mapping[str, float]
    stages_ms: Mapping[str, Mapping[str, float]]
    statuses: Mapping[str, int]
    degraded: Mapping[str, float]
    lag_ms: float


def summarise(outcomes: Sequence[Outcome], rate: float, seconds: float, deadline_ms: float) -> Summary:
    """Add one run up."""
    answered = [o for o in outcomes if o.status == _OK]
    latency = np.array([1000 * (o.done_s - o.due_s) for o in answered])
    refused = np.array(
        [1000 * (o.done_s - o.due_s) for o in outcomes if o.status not in {_OK, LOST, NOT_SENT}]
    )
    stages: dict[str, list[float]] = defaultdict(list)
    for outcome in answered:
        for entry in outcome.timing.split(", "):
            name, _, duration = entry.partition(";dur=")
            if duration:
                stages[name].append(float(duration))
    reasons = Counter(reason for o in answered if o.degraded for reason in o.degraded.split(", "))
    any_degraded = sum(bool(o.degraded) for o in answered)
    names = {LOST: "lost", NOT_SENT: "not sent"}
    in_time = int((latency <= deadline_ms).sum())
    lags = [1000 * (o.sent_s - o.due_s) for o in outcomes if o.sent_s == o.sent_s]  # not NaN
    return Summary(
        rate=rate,
        seconds=seconds,
        requests=len(outcomes),
        goodput=in_time / seconds,
        in_time=in_time / max(1, len(outcomes)),
        latency_ms=_percentiles(latency),
        refused_ms=_percentiles(refused),
        slack_ms={f"p{q:g}": float(np.percentile(deadline_ms - latency, q)) for q in (0.1, 1, 10, 50)}
        if len(latency)
        else {},
        stages_ms={name: _percentiles(np.array(values)) for name, values in stages.items()},
        statuses={names.get(s, str(s)): n for s, n in sorted(Counter(o.status for o in outcomes).items())},
        degraded={
            "any": any_degraded / max(1, len(outcomes)),
            **{reason: n / max(1, len(outcomes)) for reason, n in reasons.items()},
        },
        lag_ms=float(np.percentile(lags, 99)) if lags else 0.0,
    )


def _percentiles(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> dict[str, float]:
    if not len(values):
        return {}
    return {f"p{q:g}": float(v) for q, v in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)}
