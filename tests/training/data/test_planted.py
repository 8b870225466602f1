from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from rankd_contract.schema_file import load_schema
from rankd_training.data import planted
from rankd_training.data.planted import CHUNK_ROWS, PlantedConfig, write_planted
from rankd_training.errors import SettingError
from rankd_training.examples.examples import load_examples
from rankd_training.recipes import ctr
from rankd_training.settings import TrainSettings

SMALL = PlantedConfig(
    rows=20_000,
    fields=6,
    cardinality=10,
    numbers=1,
    sequences=2,
    length=5,
    tasks=2,
    interactions=1,
    strength=2,
)


def column(folder: Path, name: str) -> npt.NDArray[Any]:
    return pq.read_table(folder / "examples.parquet", columns=[name])[name].to_numpy()


def signs(folder: Path, fields: int) -> npt.NDArray[Any]:
    return np.stack([1 - 2 * (column(folder, f"f{f + 1}") % 2) for f in range(fields)])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(tmp_path_factory.mktemp("planted") / "small", SMALL)


def test_what_is_written_trains_as_it_is(small: Path, tmp_path: Path) -> None:
    examples = load_examples(small, load_schema(small / "schema.yaml"))
    assert len(examples) == 20_000
    assert examples.label_nT.mean(0) == pytest.approx([0.25, 0.25], abs=0.02)
    assert len(examples.rows["test"]) / 20_000 == pytest.approx(0.1, abs=0.01)
    settings = TrainSettings(small, small / "schema.yaml", tmp_path / "run", "lr", epochs=1)
    assert ctr.train(settings).metrics["test"].keys() == {"label_1", "label_2"}


def test_an_interaction_shows_in_all_of_its_fields_together_and_in_no_fewer(small: Path) -> None:
    ((fields,), _) = json.loads((small / "planted.json").read_text())["interactions"]
    sign_Fn, label_n = signs(small, 6), column(small, "label_1")

    def correlation(some: Any) -> float:
        return float(np.corrcoef(sign_Fn[list(some)].prod(axis=0), label_n)[0, 1])

    assert correlation(fields) > 0.2
    for size in (1, 2):
        for some in combinations(fields, size):
            assert abs(correlation(some)) < 0.03
    others = [f for f in combinations(range(6), 3) if list(f) != fields]
    assert max(abs(correlation(f)) for f in others) < 0.03


def test_a_history_tells_by_whether_it_agrees_with_the_present(small: Path) -> None:
    past = [row or [] for row in pq.read_table(small / "examples.parquet", columns=["s1"])["s1"].to_pylist()]
    majority_n = np.sign([sum(1 - 2 * (i % 2) for i in row) for row in past])
    label_n = column(small, "label_1")
    agrees_n = majority_n * signs(small, 1)[0]
    assert np.corrcoef(agrees_n, label_n)[0, 1] > 0.2
    assert abs(np.corrcoef(majority_n, label_n)[0, 1]) < 0.03
    assert {len(row) for row in past} == set(range(6))


def test_labels_are_as_likely_as_the_truth_says(small: Path) -> None:
    truth_n, label_n = column(small, "true_label_2"), column(small, "label_2")
    for low in np.arange(0, 1, 0.2):
        some = (truth_n >= low) & (truth_n < low + 0.2)
        if some.sum() > 500:
            assert label_n[some].mean() == pytest.approx(truth_n[some].mean(), abs=0.04)


def test_ids_are_zipf_like_and_signs_are_even(tmp_path: Path) -> None:
    folder = write_planted(
        tmp_path / "z", PlantedConfig(rows=60_000, fields=3, cardinality=2000, zipf=1.0, base_rate=0.1)
    )
    ids = column(folder, "f1")
    pairs = np.bincount(ids // 2, minlength=1000)
    assert pairs[0] / pairs[9] == pytest.approx(np.log(2) / np.log(11 / 10), rel=0.2), "about one over rank"
    assert (ids % 2).mean() == pytest.approx(0.5, abs=0.01)
    assert ids.max() < 2000
    assert column(folder, "label").mean() == pytest.approx(0.1, abs=0.01)


def test_the_same_seed_gives_the_same_rows_and_more_rows_begin_alike(tmp_path: Path) -> None:
    config = PlantedConfig(rows=CHUNK_ROWS + 10, fields=4, cardinality=10)
    one, again = write_planted(tmp_path / "one", config), write_planted(tmp_path / "again", config)
    assert (one / "examples.parquet").read_bytes() == (again / "examples.parquet").read_bytes()
    assert pq.ParquetFile(one / "examples.parquet").num_row_groups == 2
    longer = write_planted(tmp_path / "longer", replace(config, rows=2 * CHUNK_ROWS))
    assert np.array_equal(column(one, "f2")[:CHUNK_ROWS], column(longer, "f2")[:CHUNK_ROWS])
    other = write_planted(tmp_path / "other", replace(config, seed=1))
    assert not np.array_equal(column(one, "f2"), column(other, "f2"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rows": 0}, "at least 1"),
        ({"cardinality": 7}, "even"),
        ({"fields": 2}, "no more than fields"),
        ({"sequences": 40}, "no more than fields"),
        ({"base_rate": 1.0}, "base_rate"),
        ({"zipf": -1.0}, "zipf"),
    ],
)
def test_sizes_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        PlantedConfig(**{"rows": 10, **settings})


def test_a_folder_in_use_or_a_failure_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingError, match="exists"):
        write_planted(tmp_path, PlantedConfig(rows=10))
    monkeypatch.setattr(planted, "_biases", None)
    with pytest.raises(TypeError):
        write_planted(tmp_path / "new", PlantedConfig(rows=10))
    assert list(tmp_path.iterdir()) == []
