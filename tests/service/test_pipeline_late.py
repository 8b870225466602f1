"""What is answered where the model has no time for all candidates, or for any."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankd_service.domain import DegradeReason, Rung
from rankd_service.inference.cost import CostModel
from rankd_service.inference.loader import load_current
from rankd_service.inference.registry import ModelRegistry, Snapshot
from rankd_service.pipeline import RankPipeline
from tests.service.pipeline_bench import Bench
from tests.support.bundles import (
    SCHEMA_TEXT,
    echo,
    echo_version,
    price,
    publish_bundle,
)


def slow_by(bench: Bench, fixed_s: float, row_s: float) -> None:
    """Have the pipeline believe that inference costs so much."""
    model = bench.pipeline.find("films", None)
    assert model.cost.expected_s(10) < 0.1
    object.__setattr__(model, "cost", CostModel([(0, fixed_s), (1000, fixed_s + 1000 * row_s)]))


@pytest.mark.fault("E8")
def test_what_there_is_no_time_to_score_follows_with_the_models_average(tmp_path: Path) -> None:
    bench = Bench(tmp_path, price)
    slow_by(bench, fixed_s=0.010, row_s=0.010)
    slate = bench.rank(allowed_s=0.1)
    assert 3 <= slate.scored <= 8
    assert [(d.reason, d.rung, d.affected) for d in slate.degraded] == [
        (DegradeReason.INFERENCE_LATE, Rung.FEWER_CANDIDATES, 10 - slate.scored)
    ]
    k = slate.scored
    assert slate.order.tolist() == [*range(k - 1, -1, -1), *range(k, 10)], (
        "scored ones best first, then the rest"
    )
    assert len({tuple(row) for row in slate.task_scores_KT[k:].tolist()}) == 1
    exact = Bench(tmp_path / "again", price).rank()
    by_item = dict(zip(exact.order.tolist(), exact.scores.tolist(), strict=True))
    assert slate.scores[:k].tolist() == [by_item[at] for at in slate.order[:k].tolist()]


@pytest.mark.fault("E8")
def test_a_cheaper_model_scores_where_the_one_asked_for_has_no_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path, price)
    registry, settings = ModelRegistry(), bench.settings
    films = bench.pipeline.find("films", None)
    publish_bundle(tmp_path, "small", echo_version(7))
    small = load_current(tmp_path, "small", settings)
    registry.publish([films, small], cheaper={"films": "small"})
    bench.pipeline = RankPipeline(registry, bench.store, bench.telemetry, settings, bench.clock)
    assert bench.rank().model.name == "films", "there is time"

    slow_by(bench, fixed_s=0.010, row_s=0.010)
    slate = bench.rank(allowed_s=0.1)
    assert (slate.model.name, slate.scored) == ("small", 10)
    assert slate.scores.tolist() == pytest.approx([0.07] * 10)
    assert [(d.reason, d.rung, d.affected) for d in slate.degraded] == [
        (DegradeReason.INFERENCE_LATE, Rung.CHEAPER_MODEL, 10)
    ]
    object.__setattr__(small, "cost", CostModel([(0, 1.0), (1000, 2.0)]))
    assert bench.rank(allowed_s=0.1).model.name == "films", "the other would score fewer"


def test_a_model_over_other_features_never_scores_for_another(tmp_path: Path) -> None:
    bench = Bench(tmp_path, price)
    films = bench.pipeline.find("films", None)
    publish_bundle(tmp_path, "other", echo, SCHEMA_TEXT.replace("max_length: 5", "max_length: 6"))
    other = load_current(tmp_path, "other", bench.settings)
    snapshot = Snapshot([films, other], cheaper={"films": "other", "other": "nobody"})
    assert snapshot.cheaper(films) is None
    assert snapshot.cheaper(other) is None


@pytest.mark.fault("E8")
def test_with_no_time_to_score_any_the_order_of_the_request_is_answered(tmp_path: Path) -> None:
    bench = Bench(tmp_path, price)
    slow_by(bench, fixed_s=1.0, row_s=0.0)
    slate = bench.rank(allowed_s=0.1)
    assert (slate.scored, slate.order.tolist()) == (0, list(range(10)))
    assert [(d.reason, d.rung, d.affected) for d in slate.degraded] == [
        (DegradeReason.INFERENCE_LATE, Rung.RETRIEVAL_ORDER, 10)
    ]
