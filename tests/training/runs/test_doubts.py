from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rankd_contract.encoding import Block
from rankd_contract.schema import Entity
from rankd_training.examples.examples import Examples
from rankd_training.runs.doubts import doubts_of
from rankd_training.runs.seen_rows import SeenRows
from rankd_training.runs.telling_field import most_telling
from rankd_training.settings import TrainSettings
from tests.training.fields import categorical_schema

TOLD = TrainSettings(Path("e"), Path("s"), Path("o"))


def examples_of(label_n: np.ndarray, seed: int = 0) -> Examples:
    """Two users' fields and an item's of noise; half the rows are for training, half for validation."""
    rng, n = np.random.default_rng(seed), len(label_n)
    nothing = np.zeros((n, 0), np.float32)
    blocks = {
        Entity.USER: Block(rng.integers(2, 1000, (n, 2)).astype(np.int32), nothing),
        Entity.ITEM: Block(rng.integers(2, 1000, (n, 1)).astype(np.int32), nothing),
        Entity.CONTEXT: Block(np.zeros((n, 0), np.int32), nothing),
    }
    half = n // 2
    rows = {"train": np.arange(half), "valid": np.arange(half, n), "test": np.arange(half, n)[:0]}
    label_nT = label_n[:, None].astype(np.float32)
    return Examples(categorical_schema(2, 1), blocks, label_nT, np.arange(n), rows, "")


def doubts(label_n: np.ndarray, score_n: np.ndarray) -> list[str]:
    examples = examples_of(label_n)
    score_NT = score_n[len(label_n) // 2 :, None].astype(np.float32)
    found = doubts_of(TOLD, examples, score_NT, SeenRows.of(examples, examples.rows["train"]), 1)
    return [line for line in found.warnings if line.startswith("scores")]


@pytest.mark.parametrize(("positives", "doubted"), [(20, False), (150, True)])
def test_all_ranked_right_is_doubted_where_there_are_enough_to_rank(positives: int, doubted: bool) -> None:
    label_n = np.r_[np.arange(1000) < 500, np.arange(1000) < positives].astype(np.float64)
    examples = examples_of(label_n)
    score_NT = label_n[1000:, None].astype(np.float32)
    found = doubts_of(TOLD, examples, score_NT, SeenRows.of(examples, examples.rows["train"]), 1)
    assert any("too good to be true" in line for line in found.warnings) == doubted


def test_rows_that_are_ranked_by_chance_are_warned_of(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label_n = (rng.random(2000) < 0.2).astype(np.float64)
    examples = examples_of(label_n)
    for strength, warned in ((0.0, True), (0.5, False)):
        score_NT = (rng.random(1000) + strength * label_n[1000:])[:, None].astype(np.float32)
        found = doubts_of(TOLD, examples, score_NT, SeenRows.of(examples, examples.rows["train"]), 1)
        assert any("no better than by chance" in line for line in found.warnings) == warned


def test_true_probabilities_of_a_weak_signal_are_hardly_ever_doubted() -> None:
    doubted = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        score_n = 1 / (1 + np.exp(2.2 - 0.1 * rng.normal(size=2000)))
        doubted += bool(doubts((rng.random(2000) < score_n).astype(float), score_n))
    assert doubted <= 10


def test_scores_that_are_off_as_a_whole_are_told_from_those_that_are_worse_than_a_constant() -> None:
    rng = np.random.default_rng(0)
    true_n = 1 / (1 + np.exp(3 - 2 * rng.normal(size=40_000)))
    label_n = (rng.random(40_000) < true_n).astype(float)
    assert doubts(label_n, true_n) == []
    (half,) = doubts(label_n, true_n / 2)
    assert half.startswith("scores of t0 are off as a whole: their mean on validation rows is 0.0")
    (wrong,) = doubts(label_n, 1 - true_n)
    assert wrong.startswith("scores of t0 are worse probabilities than one number for all rows (0.1")


@pytest.mark.parametrize("valid", [0.0, 1.0])
def test_no_field_is_blamed_for_rows_of_one_class(valid: float) -> None:
    label_n = np.r_[np.tile([0.0, 1.0], 300), np.full(600, valid)]
    assert most_telling(examples_of(label_n), 0) == ("", 0.0)


def test_a_field_of_noise_is_told_from_one_that_tells() -> None:
    label_n = np.random.default_rng(0).integers(0, 2, 4000).astype(float)
    examples = examples_of(label_n)
    assert most_telling(examples, 0)[1] < 0.6
    examples.blocks[Entity.ITEM].ids[:, 0] = 2 + label_n
    field, auc = most_telling(examples, 0)
    assert field == next(iter(examples.schema.of(Entity.ITEM)[0].fields)).name
    assert auc == 1
