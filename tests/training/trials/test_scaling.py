from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankd_training.errors import SettingError
from rankd_training.pages.scaling_page import scaling_page
from rankd_training.trials.provenance import made_by
from rankd_training.trials.scaling import DEFAULT_AXES, Axis, parse_axis, scale
from rankd_training.trials.trial import Source, Trial
from rankd_training.trials.trial_store import TrialStore
from rankd_training.trials.withheld import without_test
from tests.training.tables import write

BASE: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 256,
    "model_config": {"hidden": [8], "embedding_width": 2, "heads": 1},
}
AXES = [Axis("model.heads", (1, 2, 3, 4)), Axis("model.embedding_width", (1, 2, 3, 4))]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TrialStore:
    folder = tmp_path_factory.mktemp("scaled")
    return TrialStore(folder / "trials", without_test(Source(*write(folder)), folder / "kept.parquet"))


@pytest.fixture(scope="module")
def report(store: TrialStore) -> dict[str, Any]:
    found = scale("mlcc", BASE, AXES, [1, 2], store)
    return {"data": "planted", **made_by("rankd scaling", "2026-01-01"), **found}


def test_every_size_is_trained_with_every_seed_and_nothing_else_is_varied(
    report: dict[str, Any], store: TrialStore
) -> None:
    heads = report["axes"]["model.heads"]
    assert heads["values"] == [1, 2, 3, 4]
    assert heads["parameters"] == sorted(set(heads["parameters"]))
    assert np.array(heads["runs"]["log_loss"]).shape == (4, 2)
    settings = {**BASE, "model_config": {**BASE["model_config"], "heads": 3}}
    run = store.find(Trial("mlcc", settings, 2))
    assert run is not None
    assert heads["runs"]["log_loss"][2][1] == run.mean("valid", "log_loss")
    assert heads["runs"]["auc_error"][2][1] == pytest.approx(1 - run.mean("valid", "auc"))
    assert "test" not in run.metrics
    # Both axes go through the base settings, which are trained once: 4 + 4 - 1 sizes.
    assert len(list(store.root.glob("*/trial.json"))) == 7 * 2


def test_the_page_and_the_json_hold_the_fits(report: dict[str, Any], tmp_path: Path) -> None:
    assert json.loads(json.dumps(report))["axes"]["model.heads"]["fits"]["log_loss"]["law"]["c"] > 0
    html = scaling_page(report)
    assert html.count("<svg") == 4
    assert not re.search(r"https?:|<script|nan", html)
    assert "1 − AUC by model.embedding_width" in html
    assert str(tmp_path) not in html


def test_a_wrong_setting_stops_before_the_first_training(store: TrialStore) -> None:
    heard: list[Trial] = []
    with pytest.raises(SettingError, match="heads"):
        scale("mlcc", BASE, [AXES[0], Axis("model.head", (1, 2, 3, 4))], [1], store, begun=heard.append)
    assert heard == []


def test_axes_are_read_from_text() -> None:
    assert parse_axis("model.heads=8,1,2,4") == Axis("model.heads", (1, 2, 4, 8))
    assert [axis.setting for axis in DEFAULT_AXES["mlcc"]] == [
        "model.channels",
        "model.heads",
        "model.embedding_width",
    ]
    for wrong in (
        "model.heads",
        "model.heads=1,2,3",
        "=1,2,3,4",
        "model.heads=1,2,x,4",
        "model.heads=0,1,2,3",
    ):
        with pytest.raises(SettingError, match=r"such as model\.heads=1,2,4,8"):
            parse_axis(wrong)
