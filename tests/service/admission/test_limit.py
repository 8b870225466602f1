from __future__ import annotations

import random

from rankd_service.admission.limit import GradientLimit


class OneWorker:
    """A process that does one thing at a time: under way at once, requests wait for each other inside it.

    `overlap` is the part of a request's time in which others can be worked on (its wait for the store).
    """

    def __init__(self, service_s: float, overlap: float = 0.3) -> None:
        self.service_s, self.overlap = service_s, overlap

    def latency_s(self, under_way: int) -> float:
        """What each of so many requests takes from permit to answer."""
        busy_s = (1 - self.overlap) * self.service_s
        return max(self.service_s, busy_s * under_way)


def saturated(limit: GradientLimit, worker: OneWorker, samples: int, jitter: float = 0.1) -> list[int]:
    """Always as many under way as the limit allows -> the limit after each sample."""
    rng, seen = random.Random(1), []
    for _ in range(samples):
        under_way = limit.value
        limit.sampled(worker.latency_s(under_way) * (1 + jitter * rng.random()), under_way)
        seen.append(limit.value)
    return seen


def test_with_more_asked_than_it_can_do_the_limit_stays_low() -> None:
    seen = saturated(GradientLimit(8, 2, 64), OneWorker(0.001), 5000)
    assert max(seen[1000:]) <= 16, "latency stays near what one request takes"
    assert min(seen[1000:]) >= 2


def test_a_worker_that_slows_down_is_asked_for_less_at_a_time_not_more() -> None:
    limit = GradientLimit(8, 2, 64)
    before = saturated(limit, OneWorker(0.001), 3000)[-1]
    assert max(saturated(limit, OneWorker(0.004), 300)) <= before + 2


def test_it_recovers_by_itself_once_the_worker_is_fast_again() -> None:
    limit = GradientLimit(8, 2, 64)
    saturated(limit, OneWorker(0.001), 2000)
    saturated(limit, OneWorker(0.050), 500)
    saturated(limit, OneWorker(0.001), 2000)
    assert 2 <= limit.value <= 16
    assert limit.latency_s < 0.02


def test_a_worker_with_room_is_given_more() -> None:
    limit = GradientLimit(4, 2, 64)
    saturated(limit, OneWorker(0.010, overlap=1.0), 2000)
    assert limit.value > 40


def test_a_process_that_is_hardly_asked_keeps_its_limit() -> None:
    limit = GradientLimit(20, 2, 64)
    for latency_s in [0.001] * 500 + [0.1] * 500:
        limit.sampled(latency_s, under_way=1)
        limit.sampled(latency_s, under_way=5)
    assert limit.value == 20


def test_at_the_start_few_are_let_in_until_it_is_known_what_a_request_takes() -> None:
    limit = GradientLimit(20, 2, 64)
    assert limit.value == 2
    for _ in range(20):
        limit.sampled(0.001, under_way=2)
    assert limit.value == 20


def test_one_slow_request_at_the_start_is_soon_one_of_many() -> None:
    limit = GradientLimit(16, 2, 64)
    for latency_s in [0.060] + [0.002] * 19:
        limit.sampled(latency_s, under_way=1)
    assert limit.latency_s < 0.006


def test_it_stays_within_its_bounds_whatever_is_seen() -> None:
    rng, limit = random.Random(2), GradientLimit(8, 3, 12)
    for _ in range(5000):
        limit.sampled(rng.choice([0.0, 1e-6, 0.001, 1.0, 100.0]), rng.randrange(0, 20))
        assert 3 <= limit.value <= 12
