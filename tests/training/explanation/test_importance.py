from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from rankd_contract.schema_file import load_schema
from rankd_training.examples.examples import load_examples
from rankd_training.examples.inputs import RowInputs, field_columns, sampled_rows
from rankd_training.explanation.importance import log_losses, permutation_importance, permutations
from rankd_training.recipes import ctr
from rankd_training.runs.finished import Run, score, score_rows
from rankd_training.settings import TrainSettings
from tests.training.tables import write


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leaning")
    examples, schema = write(folder)
    small = {"embedding_width": 4, "hidden": [16], "embedding_std": 0.3, "dropout": 0.1}
    told = TrainSettings(
        examples,
        schema,
        folder / "run",
        model_config=small,
        epochs=12,
        patience=12,
        learning_rate=0.01,
        batch_size=128,
    )
    return ctr.train(told).folder


def test_the_two_fields_that_decide_together_come_first(run: Path) -> None:
    found = Run.load(run)
    examples = load_examples(run.parent / "examples.parquet", found.schema)
    rows = examples.rows["test"]
    told: list[str] = []
    importance = permutation_importance(
        found.model, RowInputs.of(examples, rows), examples.label_nT[rows], progress=told.append
    )
    assert {one.field for one in importance[:2]} == {"income", "price"}
    assert told == list(found.schema.fields)
    for one in importance[:2]:
        assert one.auc_drop[0] is not None
        assert one.auc_drop[0] > 0.2
        assert one.loss_rise[0] > 5 * one.loss_rise_std[0] > 0
    assert all(abs(one.loss_rise[0]) < 0.1 for one in importance[2:])


def test_a_constant_field_costs_nothing(tmp_path: Path) -> None:
    examples, schema = write(tmp_path)
    folder = ctr.train(TrainSettings(examples, schema, tmp_path / "run", "lr", epochs=1)).folder
    found = Run.load(folder)
    loaded = load_examples(examples, found.schema)
    rows = loaded.rows["test"][:1]  # one row has only itself to swap with
    for one in permutation_importance(found.model, RowInputs.of(loaded, rows), loaded.label_nT[rows]):
        assert list(one.loss_rise) == [0, 0]
        assert list(one.auc_drop) == [None, None]


def test_a_permuted_field_moves_alone_and_with_its_fellows(tmp_path: Path) -> None:
    examples, schema = write(tmp_path)
    loaded = load_examples(examples, load_schema(schema))
    inputs = RowInputs.of(loaded, loaded.rows["valid"])
    order_KN = permutations(200, 2, seed=1)
    moved = inputs.permuted(["recent", "price"], order_KN)
    for field, (name, at) in inputs.columns.items():
        before = inputs.features[name][:, at]
        for k in (0, 1):
            after = moved[name][k * 200 : (k + 1) * 200, at]
            expected = before[order_KN[k]] if field in {"recent", "price"} else before
            assert torch.equal(after, expected)
    assert inputs.features["in_item_values"].shape == (200, 2)


def test_columns_cover_every_input_once(tmp_path: Path) -> None:
    examples, schema = write(tmp_path)
    loaded = load_examples(examples, load_schema(schema))
    inputs = RowInputs.of(loaded, np.arange(3))
    covered = {name: torch.zeros(whole.shape[1]) for name, whole in inputs.features.items()}
    for name, at in field_columns(loaded.schema).values():
        covered[name][at] += 1
    assert all(torch.equal(count, torch.ones_like(count)) for count in covered.values())


def test_scores_of_rows_are_those_of_their_inputs_in_any_batch(run: Path) -> None:
    found = Run.load(run)
    examples = load_examples(run.parent / "examples.parquet", found.schema)
    rows = sampled_rows(examples.rows["train"], 50, seed=2)
    assert len(rows) == 50
    assert (np.diff(rows) > 0).all()
    whole = score_rows(found.model, examples, rows)
    one = [score(found.model, RowInputs.of(examples, rows[k : k + 1]).features, 1) for k in range(50)]
    np.testing.assert_allclose(whole, np.concatenate(one), atol=1e-6)


def test_log_losses_are_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    label_NT = (generator.random((50, 2)) < 0.5).astype(np.float32)
    score_NT = generator.random((50, 2)).astype(np.float32)
    expected = [log_loss(label_NT[:, t], score_NT[:, t].astype(np.float64)) for t in (0, 1)]
    np.testing.assert_allclose(log_losses(label_NT, score_NT), expected)
    assert np.isfinite(log_losses(np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)))
