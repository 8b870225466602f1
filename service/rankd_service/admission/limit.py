"""How many requests may be under way: a number that follows the latency they see.

The form is the gradient of Netflix's concurrency-limits (`Gradient2Limit.java`), once a window of samples:

    gradient = max(0.5, min(1, tolerance * base / short))
    limit   <- limit * (1 - smoothing) + smoothing * (limit * gradient + slack)

`short` is the window's mean latency. While latency is what it is with hardly anybody inside, the
gradient is 1 and the limit grows by the slack; once requests wait for each other inside the process,
it falls.

`base` is not Gradient2's slow average of all latencies: under lasting overload that average drifts to
whatever the overload makes of it, and the limit with it, up to its maximum (the simulation in
tests/service/admission/test_limit.py shows it). It is the latency of requests that had at most `least`
under way; where none came for long, and at the start, the limit is held at `least` for some twenty
requests in order to measure it, as Envoy's adaptive concurrency filter does. A process that is not asked
for as much as it may do learns nothing about its limit, so such samples change nothing.
"""

from __future__ import annotations

__all__ = ["GradientLimit"]

_TOLERANCE = 1.5
_SMOOTHING = 0.5
_SLACK = 2.0
_WINDOW = 20
_BASE_SAMPLES = 20
_REMEASURE_AFTER = 1000
_LATENCY_SAMPLES = 100
_STALL = 10.0


class GradientLimit:
    """Starts at `initial` and stays within `least` and `most`. Times are seconds; one sample a request."""

    def __init__(self, initial: float, least: float, most: float) -> None:
        """Know nothing of latency yet."""
        self._limit, self._least, self._most = initial, least, most
        self._base, self._latency = _Average(_BASE_SAMPLES), _Average(_LATENCY_SAMPLES)
        self._window_s, self._in_window = 0.0, 0
        self._since_base, self._to_measure = 0, _BASE_SAMPLES

    @property
    def value(self) -> int:
        """How many requests may be under way."""
        return int(self._least if self._to_measure else self._limit)

    @property
    def least(self) -> int:
        """How many may be under way whatever happens."""
        return int(self._least)

    @property
    def latency_s(self) -> float:
        """What a request takes, on average over the last hundred or so; 0 before the first."""
        return self._latency.value

    def sampled(self, latency_s: float, under_way: int) -> None:
        """Note what one request took, and how many were under way when it began, itself included."""
        # A stall of the machine is not what requests take from now on.
        self._latency.follow(min(latency_s, _STALL * (self._latency.value or latency_s)))
        if under_way <= self._least:
            self._base.follow(latency_s)
            self._since_base = 0
            self._to_measure = max(0, self._to_measure - 1)
            if under_way < self._least or self._limit > self._least:
                return
        self._since_base += 1
        if self._since_base >= _REMEASURE_AFTER:
            self._since_base, self._to_measure = 0, _BASE_SAMPLES
        if self._to_measure or under_way < self._limit / 2:
            return
        self._window_s += latency_s
        self._in_window += 1
        if self._in_window == _WINDOW:
            self._adapt(self._window_s / _WINDOW)
            self._window_s, self._in_window = 0.0, 0

    def _adapt(self, short_s: float) -> None:
        base_s = self._base.value or short_s
        gradient = max(0.5, min(1.0, _TOLERANCE * base_s / max(short_s, 1e-9)))
        wanted = self._limit * gradient + _SLACK
        wanted = self._limit * (1 - _SMOOTHING) + _SMOOTHING * wanted
        self._limit = max(self._least, min(self._most, wanted))


class _Average:
    """An exponential average of the last `samples` or so; of fewer, their mean.

    Were the first one taken as it is, a process that was slow once as it began would tell fifty callers that
    they cannot be answered in time.
    """

    def __init__(self, samples: int) -> None:
        self.value, self._seen, self._least_weight = 0.0, 0, 2 / (samples + 1)

    def follow(self, sample: float) -> None:
        self._seen += 1
        self.value += max(1 / self._seen, self._least_weight) * (sample - self.value)
