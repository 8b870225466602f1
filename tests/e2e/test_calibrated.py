"""From training to an answer over HTTP: what a calibrated model says can be taken at its word."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest

from rankd_contract.calibration import Calibration
from rankd_export.exporter import export_run
from rankd_training.measures.calibration import FILE
from rankd_training.measures.metrics import calibration_error
from rankd_training.recipes.ctr import train
from rankd_training.settings import TrainSettings
from tests.support.process import service_process
from tests.training.tables import examples_table, negatives_thinned, write

TASKS = ("click", "buy")
CONFIG = {"embedding_width": 4, "hidden": [16], "dropout": 0.0, "embedding_std": 0.3}
ITEMS = 900


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_model_trained_with_calibration_answers_with_calibrated_scores(tmp_path: Path) -> None:
    examples, schema = write(tmp_path, negatives_thinned(examples_table(9000)))
    settings = TrainSettings(
        examples,
        schema,
        tmp_path / "run",
        model_config=CONFIG,
        epochs=8,
        learning_rate=0.02,
        patience=8,
        calibration="isotonic",
    )
    train(settings)
    shutil.copytree(tmp_path / "run", tmp_path / "raw")
    (tmp_path / "raw" / FILE).unlink()
    bundle = export_run(tmp_path / "run", tmp_path / "models", name="calibrated")
    export_run(tmp_path / "raw", tmp_path / "models", name="raw")

    rng = np.random.default_rng(3)
    price_N = rng.normal(size=ITEMS).astype(np.float32)
    # What the examples were drawn from: with an income above 0, items of a price above 0 are liked.
    click_N = rng.random(ITEMS) < np.where(price_N > 0, 0.9, 0.1)
    items = [{"id": str(k), "fields": {"price": float(price)}} for k, price in enumerate(price_N)]
    body = {"user": {"id": "1", "fields": {"income": 1.0}}, "items": items, "sort": False}
    score_NT, fused_N = {}, {}
    with service_process(tmp_path, {"models": {"repository": str(tmp_path / "models")}}) as service:
        for name in ("calibrated", "raw"):
            answer = httpx.post(f"{service.address}/v1/rank/{name}", json=body, timeout=10)
            assert answer.status_code == 200, answer.text
            ranked = answer.json()["items"]
            score_NT[name] = np.array([[item["scores"][t] for t in TASKS] for item in ranked], np.float32)
            fused_N[name] = np.array([item["score"] for item in ranked])

    curves = Calibration.of(bundle.manifest.calibration, TASKS)
    np.testing.assert_allclose(score_NT["calibrated"], curves(score_NT["raw"]), atol=1e-6)
    np.testing.assert_allclose(fused_N["calibrated"], score_NT["calibrated"].mean(1), atol=1e-6)
    before = calibration_error(click_N.astype(np.float32), score_NT["raw"][:, 0])
    after = calibration_error(click_N.astype(np.float32), score_NT["calibrated"][:, 0])
    assert after < before / 2
