"""Encoded rows that memory would not hold: files that are mapped, and found again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rankd_contract.schema import Entity
from rankd_training.data.splits import SplitPlan
from rankd_training.errors import ExamplesError
from tests.training.examples.loaded import load, repeated
from tests.training.tables import examples_table, with_value


def test_what_memory_would_not_hold_is_mapped_and_equal(tmp_path: Path) -> None:
    table = repeated(20)
    held = load(tmp_path, table)
    mapped = load(tmp_path, table, in_memory_bytes=0, cache=tmp_path / "cache")
    assert isinstance(mapped.blocks[Entity.USER].ids, np.memmap)
    for entity in Entity:
        assert np.array_equal(held.blocks[entity].ids, mapped.blocks[entity].ids)
        assert np.array_equal(held.blocks[entity].values, mapped.blocks[entity].values)
    assert np.array_equal(held.label_nT, mapped.label_nT)
    assert np.array_equal(held.group_n, mapped.group_n)
    for name, rows in held.rows.items():
        assert np.array_equal(rows, mapped.rows[name])


def test_mapped_rows_are_encoded_once_for_the_same_files_and_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first = load(tmp_path, in_memory_bytes=0, cache=cache)
    (folder,) = cache.iterdir()
    with monkeypatch.context() as frozen:
        frozen.setattr("rankd_training.examples.examples._encode", None)
        again = load(tmp_path, in_memory_bytes=0, cache=cache)
    assert np.array_equal(first.blocks[Entity.ITEM].ids, again.blocks[Entity.ITEM].ids)
    again.blocks[Entity.ITEM].ids[:] = 0
    assert first.blocks[Entity.ITEM].ids.any(), "what a run writes stays its own"
    load(tmp_path, in_memory_bytes=0, cache=cache, split=SplitPlan())
    load(tmp_path, in_memory_bytes=0, cache=cache, group_column="item_id")
    load(tmp_path, examples_table(seed=1), in_memory_bytes=0, cache=cache)
    assert len(list(cache.iterdir())) == 4, "another split, group or file is encoded anew"
    assert folder in cache.iterdir()


def test_of_two_processes_that_encode_the_same_rows_both_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    with monkeypatch.context() as blind:  # as where the other finishes after this one has looked
        blind.setattr("rankd_training.examples.examples.load_arrays", lambda *arguments: None)
        first = load(tmp_path, in_memory_bytes=0, cache=cache)
        second = load(tmp_path, in_memory_bytes=0, cache=cache)
    assert np.array_equal(first.blocks[Entity.ITEM].ids, second.blocks[Entity.ITEM].ids)
    assert len(list(cache.iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(ExamplesError, match=r"cache.*set XDG_CACHE_HOME .* or raise in_memory_mb"):
        load(tmp_path, in_memory_bytes=0, cache=tmp_path / "cache")


def test_rows_that_cannot_be_encoded_leave_nothing_in_the_cache(tmp_path: Path) -> None:
    table = with_value(examples_table(), "clicked", 700, 3)
    with pytest.raises(ExamplesError):
        load(tmp_path, table, in_memory_bytes=0, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
