from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rankd_contract.encoding import Block
from rankd_contract.schema import Entity
from rankd_training.errors import RunError
from rankd_training.examples.examples import Examples
from rankd_training.runs import seen_rows
from rankd_training.runs.seen_rows import SeenRows
from tests.training.fields import categorical_schema


def rows(ids_nW: np.ndarray, label_n: np.ndarray) -> Examples:
    n, of = len(ids_nW), categorical_schema(2, 1)
    nothing = np.zeros((n, 0), np.float32)
    blocks = {
        Entity.USER: Block(ids_nW[:, :2].astype(np.int32), nothing),
        Entity.ITEM: Block(ids_nW[:, 2:].astype(np.int32), nothing),
        Entity.CONTEXT: Block(np.zeros((n, 0), np.int32), nothing),
    }
    label_nT = label_n[:, None].astype(np.float32)
    return Examples(of, blocks, label_nT, np.arange(n), {"train": np.arange(n)}, "")


def test_of_more_rows_than_are_kept_the_share_that_was_seen_is_still_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seen_rows, "KEPT", 2000)
    monkeypatch.setattr(seen_rows, "_NUMBERS_AT_ONCE", 28_000)
    rng = np.random.default_rng(0)
    examples = rows(rng.integers(0, 10**6, (50_000, 3)), rng.integers(0, 2, 50_000))
    seen = SeenRows.of(examples, np.arange(40_000))
    assert len(seen.hash_k) == 2000
    every, none, half = (
        seen.share(examples, np.arange(*span)) for span in ((0, 40_000), (40_000, 50_000), (35_000, 45_000))
    )
    assert every is not None
    assert none is not None
    assert half is not None
    assert (every.value, none.value) == (1, 0)
    assert half.value == pytest.approx(0.5, abs=0.08)
    assert every.beyond(0.9)
    assert not none.beyond(0)
    assert not half.beyond(0.47)
    assert seen.share(examples, np.arange(1000)) is None, "some fifty of them can be compared"
    assert seen.share(examples, np.arange(0)) is None


def test_a_row_differs_by_any_number_and_by_where_it_stands() -> None:
    ids_nW, label_n = np.array([[1, 2, 3]] * 5), np.zeros(5)
    ids_nW[1], ids_nW[2, 2], label_n[3] = [2, 1, 3], 4, 1
    examples = rows(ids_nW, label_n)
    assert len(SeenRows.of(examples, np.arange(5)).hash_k) == 4, "the first and the last are alike"


def test_what_is_kept_is_read_again_and_damage_is_named(tmp_path: Path) -> None:
    assert SeenRows.load(tmp_path) is None
    seen = SeenRows.of(rows(np.arange(30).reshape(10, 3), np.zeros(10)), np.arange(10))
    seen.save(tmp_path)
    found = SeenRows.load(tmp_path)
    assert found is not None
    assert np.array_equal(found.hash_k, seen.hash_k)
    (tmp_path / "seen.safetensors").write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"seen\.safetensors: cannot be read"):
        SeenRows.load(tmp_path)
