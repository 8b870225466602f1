from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rankd_contract.calibration import Calibration, Curve
from rankd_training.errors import RunError
from rankd_training.measures import calibration
from rankd_training.measures.calibration import fit, isotonic, platt
from rankd_training.measures.metrics import calibration_error
from rankd_training.recipes.ctr import train
from rankd_training.settings import TrainSettings
from tests.training.tables import examples_table, negatives_thinned, write

Floats = NDArray[np.float32]


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = 1 / (1 + np.exp(-x))
    return out


def drawn(seed: int, rows: int = 20_000) -> tuple[Floats, Floats]:
    """Scores that are too sure of themselves and too high: sigmoid(2 x + 1) where the truth is sigmoid(x)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    return sigmoid(2 * x + 1).astype(np.float32), (rng.random(rows) < sigmoid(x)).astype(np.float32)


def test_platt_finds_the_line_that_undoes_overconfidence() -> None:
    found = platt(*drawn(0))
    assert found.scale == pytest.approx(0.5, abs=0.03)
    assert found.shift == pytest.approx(-0.5, abs=0.05)


@pytest.mark.parametrize("method", [platt, isotonic])
def test_other_rows_are_calibrated_too(method: Callable[[Floats, Floats], Curve]) -> None:
    curve = method(*drawn(0))
    score, label = drawn(1)
    assert calibration_error(label, score) > 0.1
    assert calibration_error(label, curve(score)) < 0.02


def test_isotonic_follows_what_no_line_can() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(40_000).astype(np.float32)
    truth = np.where(score < 0.5, 0.1 + 0.1 * score, 0.4 + 0.5 * score)
    label = (rng.random(40_000) < truth).astype(np.float32)
    assert calibration_error(label, isotonic(score, label)(score)) < 0.01
    assert calibration_error(label, platt(score, label)(score)) > 0.02


def test_isotonic_keeps_scores_apart_where_steps_would_tie_them() -> None:
    score, label = drawn(0, 2000)
    found = isotonic(score, label)(np.sort(score))
    assert len(np.unique(found)) > 0.95 * len(np.unique(score))


def test_a_curve_stays_short_on_many_rows() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(300_000).astype(np.float32)
    label = (rng.random(300_000) < score).astype(np.float32)
    assert len(isotonic(score, label).scores) <= 258


def test_scores_that_are_worse_than_chance_get_the_base_rate_and_keep_their_order() -> None:
    score, label = drawn(0)
    found = platt(score, 1 - label)
    assert found.scale > 0
    assert found(score).mean() == pytest.approx((1 - label).mean(), abs=0.01)


def test_fitting_looks_at_validation_rows_only() -> None:
    rows = [(score[:, None], label[:, None]) for score, label in (drawn(0), drawn(1), drawn(2))]
    one = fit("platt", ("a",), {"valid": rows[0], "test": rows[1]})
    two = fit("platt", ("a",), {"valid": rows[0], "test": rows[2]})
    assert one.tasks == two.tasks
    assert one.error_after["test"]["a"] < one.error_before["test"]["a"] / 4


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_a_run_keeps_its_curves_and_what_they_are_good_for(tmp_path: Path, method: str) -> None:
    examples, schema = write(tmp_path, negatives_thinned(examples_table(6000)))
    config = {"embedding_width": 4, "hidden": [16], "dropout": 0.0, "embedding_std": 0.3}
    given: dict[str, Any] = {
        "model_config": config,
        "epochs": 6,
        "learning_rate": 0.01,
        "calibration": method,
    }
    train(TrainSettings(examples, schema, tmp_path / "run", **given))
    tree = json.loads((tmp_path / "run" / calibration.FILE).read_text())
    assert tree["method"] == method
    curves = calibration.read(tmp_path / "run")
    assert list(curves) == ["click", "buy"]
    assert any(Calibration.of(curves, ("click", "buy")).curves)
    for task in curves:
        assert tree["error_after"]["test"][task] < 0.7 * tree["error_before"]["test"][task]


def test_a_run_without_curves_has_none_and_a_broken_file_is_named(tmp_path: Path) -> None:
    assert calibration.read(tmp_path) == {}
    (tmp_path / calibration.FILE).write_text('{"tasks": {"click": {"kind": "platt"}}}')
    with pytest.raises(RunError, match=r"calibration\.json"):
        calibration.read(tmp_path)
