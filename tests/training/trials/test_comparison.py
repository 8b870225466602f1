from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import ttest_rel
from sklearn.metrics import roc_auc_score

from rankd_training.errors import SettingError
from rankd_training.trials.comparison import Contestant, compare, holm, paired_t
from rankd_training.trials.comparison_text import comparison_markdown, comparison_table, comparison_verdicts
from rankd_training.trials.provenance import made_by
from rankd_training.trials.trial import Source, Trial
from rankd_training.trials.trial_store import TrialStore
from tests.training.tables import write

CROSSED = {
    "epochs": 10,
    "patience": 10,
    "batch_size": 128,
    "learning_rate": 0.01,
    "model_config": {"embedding_width": 4, "hidden": [16], "embedding_std": 0.3, "dropout": 0.1},
}
CONTESTANTS = [Contestant("mlcc", CROSSED, "good.yaml"), Contestant("lr", {"epochs": 2}, "defaults")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TrialStore:
    folder = tmp_path_factory.mktemp("compared")
    return TrialStore(folder / "trials", Source(*write(folder)))


@pytest.fixture(scope="module")
def report(store: TrialStore) -> dict[str, Any]:
    found = compare(CONTESTANTS, [1, 2, 3], store, resamples=50)
    return {"data": "planted", **made_by("rankd compare --models mlcc,lr", "2026-01-01"), **found}


def test_a_planted_difference_is_found_and_is_no_chance(report: dict[str, Any]) -> None:
    click = next(entry for entry in report["differences"] if entry["task"] == "click")
    assert click["models"] == ["mlcc", "lr"]
    assert click["seeds"]["mean"] > 0.2
    assert click["seeds"]["p_holm"] < 0.05
    for measure in ("auc", "user_auc", "ensemble_auc"):
        assert 0 < click[measure]["low"] < click[measure]["difference"] < click[measure]["high"]


def test_means_and_deviations_are_those_of_the_runs(report: dict[str, Any], store: TrialStore) -> None:
    examples = store.source.load()
    rows = examples.rows["test"]
    runs = [store.find(Trial("mlcc", CROSSED, seed)) for seed in (1, 2, 3)]
    scores = [run.scores()["test"][:, 0] for run in runs if run]
    aucs = [roc_auc_score(examples.label_nT[rows, 0], score_N) for score_N in scores]
    spread = report["models"]["mlcc"]["metrics"]["test"]["click"]["auc"]
    assert spread["values"] == pytest.approx(aucs)
    assert spread["mean"] == pytest.approx(np.mean(aucs))
    assert spread["std"] == pytest.approx(np.std(aucs, ddof=1))
    together = roc_auc_score(examples.label_nT[rows, 0], np.mean(scores, axis=0))
    lr = [run.scores()["test"][:, 0] for s in (1, 2, 3) if (run := store.find(Trial("lr", {"epochs": 2}, s)))]
    other = roc_auc_score(examples.label_nT[rows, 0], np.mean(lr, axis=0))
    assert report["differences"][0]["ensemble_auc"]["difference"] == pytest.approx(together - other)


def test_a_second_comparison_trains_nothing(report: dict[str, Any], store: TrialStore) -> None:
    before = {path: path.stat().st_mtime_ns for path in store.root.glob("*/trial.json")}
    heard: list[Trial] = []
    again = compare(CONTESTANTS, [1, 2, 3], store, resamples=50, begun=heard.append)
    assert {path: path.stat().st_mtime_ns for path in store.root.glob("*/trial.json")} == before
    assert len(heard) == 6
    assert [trial.seed for trial in heard] == [1, 1, 2, 2, 3, 3]
    assert again == {key: report[key] for key in again}


def test_one_wrong_setting_stops_before_the_first_training(store: TrialStore) -> None:
    heard: list[Trial] = []
    wrong = Contestant("lr", {"epoch": 2}, "defaults")
    with pytest.raises(SettingError, match="did you mean 'epochs'"):
        compare([CONTESTANTS[0], wrong], [9], store, begun=heard.append)
    assert heard == []


def test_the_page_says_how_it_was_made_and_what_met_the_test_rows(report: dict[str, Any]) -> None:
    text = comparison_markdown(report)
    assert text.startswith("# Results on planted\n\n`rankd compare --models mlcc,lr`, 2026-01-01, ")
    assert (
        "No other setting of these models has been scored on them, as far as the store of these runs knows."
        in text
    )
    assert "| click | mlcc − lr | +0." in text
    assert "good.yaml" in text
    assert f"SHA-256 `{report['examples_sha256']}`" in text
    more = json.loads(json.dumps(report))
    more["models"]["lr"]["settings_judged_on_test"] = 4
    assert "store of these runs knows: lr 4; one for every other model" in comparison_markdown(more)
    console = Console(record=True, width=80)
    console.print(comparison_table(report))
    shown = console.export_text()
    assert "mlcc" in shown
    assert "…" not in shown


def test_each_pair_has_its_verdict_on_a_line(report: dict[str, Any]) -> None:
    lines = comparison_verdicts(report)
    assert len(lines) == len(report["differences"])
    click = next(line for line in lines if line.startswith("click: mlcc − lr = +0."))
    assert "AUC: more than chance (95 % over test users or rows: +0." in click
    assert "; paired t-test over 3 seeds, p " in click.replace(": p", ", p")


@pytest.mark.parametrize(
    ("p", "low", "said"),
    [
        (0.01, 0.01, "AUC: more than chance (95 % over test users or rows: +0.0100 to +0.0300; paired"),
        (0.01, -0.01, "more than the seeds' chance, but other rows could say otherwise (95 % over test"),
        (0.065, 0.01, "these rows tell them apart, other seeds may not (95 % over test users or rows: +0.01"),
        (0.065, 0.01, "paired t-test over 3 seeds: p 0.065, but 3 seeds rarely tell: try 5)"),
        (0.4, -0.01, "AUC: no more than chance (95 % over test users or rows: -0.0100 to +0.0300; paired"),
        (None, 0.01, "these rows tell them apart (95 % over test users or rows: +0.0100 to +0.0300; no test"),
        (None, -0.01, "to +0.0300; no test over seeds: all differ alike)"),
        (0.01, None, "AUC: one class only, so no AUC (paired t-test"),
    ],
)
def test_a_verdict_names_both_kinds_of_chance(
    report: dict[str, Any], p: float | None, low: float | None, said: str
) -> None:
    other = json.loads(json.dumps(report))
    other["differences"][0]["seeds"]["p_holm"] = p
    other["differences"][0]["auc"] = None if low is None else {"difference": 0.02, "low": low, "high": 0.03}
    assert said in comparison_verdicts(other)[0]


def test_one_model_and_one_seed_have_no_difference_and_no_deviation(
    store: TrialStore, tmp_path: Path
) -> None:
    found = compare([CONTESTANTS[1]], [1], store, resamples=5)
    assert found["differences"] == []
    assert found["models"]["lr"]["metrics"]["test"]["click"]["auc"]["std"] == 0
    whole = {"data": "one", **made_by("rankd compare", "2026-01-01"), **found}
    assert "## Differences" not in comparison_markdown(whole)


def test_seeds_are_compared_pair_by_pair() -> None:
    ours, theirs = [0.70, 0.71, 0.69, 0.72], [0.69, 0.70, 0.69, 0.70]
    found = paired_t(ours, theirs)
    assert found.p == pytest.approx(ttest_rel(ours, theirs).pvalue)
    assert found.mean == pytest.approx(0.01)
    assert paired_t([0.5, 0.6], [0.4, 0.5]).p is None  # equal differences
    assert paired_t([0.5], [0.4]).p is None  # one seed


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
