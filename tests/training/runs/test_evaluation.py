from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from rankd_contract.calibration import Calibration
from rankd_training.errors import RunError, SettingError
from rankd_training.measures.calibration import FILE
from rankd_training.runs import checkpoint
from rankd_training.runs.evaluation import ACTIVITY, evaluate_run
from rankd_training.runs.slices import by_field
from rankd_training.runs.subject import load_subject
from tests.training.tables import examples_table, with_column


def test_a_run_is_judged_as_training_judged_it(run: Path) -> None:
    subject = load_subject(run, run.parent / "examples.parquet")
    found = evaluate_run(subject, resamples=20)
    assert subject.same_file
    for task, measures in found.metrics.items():
        for measure, estimate in measures.items():
            assert estimate is not None
            assert estimate.value == pytest.approx(subject.run.metrics["test"][task][measure], abs=1e-6)


def test_a_calibrated_run_is_judged_by_the_scores_it_is_served_with(run: Path, tmp_path: Path) -> None:
    plain = load_subject(run, run.parent / "examples.parquet")
    assert not plain.calibrated
    curve = {"kind": "platt", "scale": 0.5, "shift": -1.0}
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / FILE).write_text(json.dumps({"tasks": {"click": curve}}))
    served = load_subject(tmp_path / "run", run.parent / "examples.parquet")
    assert served.calibrated
    expected = Calibration.of({"click": curve}, ["click", "buy"])(plain.score_NT)
    assert np.array_equal(served.score_NT, expected)
    assert not np.allclose(served.score_NT[:, 0], plain.score_NT[:, 0], atol=0.01)
    assert np.array_equal(served.score_NT[:, 1], plain.score_NT[:, 1])


def test_slices_hold_every_row_once_and_their_own_auc(run: Path) -> None:
    subject = load_subject(run, run.parent / "examples.parquet", split="valid")
    found = evaluate_run(subject, by=["item_id", "income", "tags", "hour", "weight"], resamples=5)
    assert list(found.slices) == [ACTIVITY, "item_id", "income", "tags", "hour", "weight"]
    for by_task in found.slices.values():
        assert sum(piece.rows for piece in by_task["click"]) == found.rows == 200
    items = found.slices["item_id"]["click"]
    assert len(items) == 12  # eleven items and all others
    assert items[-1].title == "all others"
    table = examples_table().to_pydict()
    rows = [k for k in subject.row_N.tolist() if str(table["item_id"][k]) == items[0].title]
    at = np.flatnonzero(np.isin(subject.row_N, rows))
    expected = roc_auc_score(subject.label_NT[at, 0], subject.score_NT[at, 0])
    assert items[0].auc is not None
    assert items[0].auc.value == pytest.approx(expected)


def test_numbers_are_cut_into_quarters_and_missing_ones_kept_apart(run: Path) -> None:
    path, schema = run.parent / "examples.parquet", checkpoint.load(run).schema
    pieces = by_field(path, schema, "income", np.arange(1200))
    assert [len(piece.at) for piece in pieces] == [300] * 4
    weights = by_field(path, schema, "weight", np.arange(1200))
    assert {piece.title: len(piece.at) for piece in weights} == {"1.5": 1028, "missing": 172}


def test_lists_are_told_apart_by_length(run: Path) -> None:
    path, schema = run.parent / "examples.parquet", checkpoint.load(run).schema
    pieces = by_field(path, schema, "tags", np.arange(1200))
    assert [(piece.title, len(piece.at)) for piece in pieces] == [
        ("empty", 400),
        ("length 1", 400),
        ("length 2", 400),
    ]


def test_a_column_that_no_field_reads_tells_rows_apart_too(run: Path) -> None:
    pieces = by_field(run.parent / "examples.parquet", checkpoint.load(run).schema, "split", np.arange(60))
    assert [(piece.title, len(piece.at)) for piece in pieces] == [("train", 40), ("valid", 10), ("test", 10)]


def test_users_without_training_rows_are_a_slice_of_their_own(run: Path) -> None:
    subject = load_subject(run, run.parent / "examples.parquet")
    trained = {int(user) for user in subject.examples.group_n[subject.examples.rows["train"]]}
    strangers = int((~np.isin(subject.user_N, list(trained))).sum())
    pieces = {p.title: p.rows for p in evaluate_run(subject, resamples=2).slices[ACTIVITY]["click"]}
    assert pieces.get("none", 0) == strangers
    assert sum(pieces.values()) == 200


def test_rows_of_another_file_that_were_learned_from_are_found(run: Path, tmp_path: Path) -> None:
    """The same rows in another order are another file, and no row of it is new."""
    table = examples_table()
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    pq.write_table(shuffled.drop_columns("split"), tmp_path / "shuffled.parquet")
    subject = load_subject(run, tmp_path / "shuffled.parquet")
    assert subject.split == "all"
    assert subject.seen is not None
    assert subject.seen.value == pytest.approx(4 / 6)
    assert "66.7% of these rows are alike to a training row" in str(subject.provenance)
    assert "(0.0% of the run's own test rows are), so the numbers say too much" in str(subject.provenance)
    pq.write_table(examples_table(seed=9), tmp_path / "new.parquet")
    fresh = load_subject(run, tmp_path / "new.parquet")
    assert fresh.seen is not None
    assert fresh.seen.value == 0
    assert "too much" not in str(fresh.provenance)
    shutil.copytree(run, tmp_path / "before")
    (tmp_path / "before" / "seen.safetensors").unlink()
    known = load_subject(tmp_path / "before", tmp_path / "new.parquet").provenance
    assert "whether these rows are among its training rows is not known" in str(known)
    assert load_subject(run, run.parent / "examples.parquet").provenance is None


def test_rows_that_are_nobodys_are_counted_apart(run: Path, tmp_path: Path) -> None:
    table = examples_table()
    users = [None if k % 3 == 0 else i for k, i in enumerate(table["user_id"].to_pylist())]
    pq.write_table(with_column(table, "user_id", users), tmp_path / "holes.parquet")
    subject = load_subject(run, tmp_path / "holes.parquet", split="all")
    found = evaluate_run(subject, resamples=5)
    assert (found.nobodys, found.users) == (400, len({i for i in users if i is not None}))
    assert found.whose == f" of {found.users} users, 400 of nobody"
    (nobodys,) = (piece for piece in found.slices[ACTIVITY]["click"] if piece.title == "no user")
    assert nobodys.rows == 400
    assert "none" not in {piece.title for piece in found.slices[ACTIVITY]["click"]}
    assert sum(piece.rows for piece in found.slices[ACTIVITY]["click"]) == 1200, "each row is in one slice"


def test_an_auc_of_a_few_positives_has_no_interval(run: Path, tmp_path: Path) -> None:
    table = examples_table()
    clicked = table["clicked"].to_numpy().copy()
    item_n = table["item_id"].to_numpy()
    usual, next_usual = (str(item) for item in np.argsort(-np.bincount(item_n), kind="stable")[:2])
    few = np.flatnonzero(item_n == int(usual))
    clicked[few] = 0
    clicked[few[:4]] = 1
    pq.write_table(with_column(table, "clicked", clicked.tolist()), tmp_path / "few.parquet")
    found = evaluate_run(
        load_subject(run, tmp_path / "few.parquet", split="all"), by=["item_id"], resamples=50
    )
    pieces = {piece.title: piece for piece in found.slices["item_id"]["click"]}
    alone, other = pieces[usual].auc, pieces[next_usual].auc
    assert pieces[usual].positives == 4
    assert alone is not None
    assert alone.low is None
    assert other is not None
    assert other.low is not None
    assert other.low < other.value


def test_a_task_has_the_facts_that_its_metrics_are_read_beside(run: Path) -> None:
    subject = load_subject(run, run.parent / "examples.parquet")
    facts = evaluate_run(subject, resamples=5).facts["click"]
    label_N = subject.label_NT[:, 0]
    rate = label_N.mean()
    assert facts.positives == label_N.sum()
    assert facts.mean_score == pytest.approx(subject.score_NT[:, 0].mean())
    assert facts.constant_log_loss == pytest.approx(-rate * np.log(rate) - (1 - rate) * np.log(1 - rate))
    assert 0 < facts.ranked_users <= 40


def test_wrong_steps_are_named(run: Path, tmp_path: Path) -> None:
    examples = run.parent / "examples.parquet"
    with pytest.raises(SettingError, match="'dev'; there are train, valid, test"):
        load_subject(run, examples, split="dev")
    with pytest.raises(SettingError, match=r"'incomes'; did you mean 'income'\? fields: user_id, income"):
        evaluate_run(load_subject(run, examples), by=["incomes"], resamples=1)
    with pytest.raises(RunError):
        load_subject(tmp_path, examples)
