from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankd_training.data import row_files
from rankd_training.errors import ExamplesError, SettingError
from rankd_training.measures.calibration import FILE
from rankd_training.runs.finished import Run
from rankd_training.runs.scoring import score_file
from rankd_training.runs.subject import load_subject
from tests.training.tables import examples_table, with_value


def test_rows_without_labels_get_the_scores_that_they_get_with_them(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibrated as where the model is served, and in pieces as from a file of any size."""
    (run / FILE).write_text(json.dumps({"tasks": {"click": {"kind": "platt", "scale": 0.5, "shift": -1.0}}}))
    expected = load_subject(run, run.parent / "examples.parquet", split="all").score_NT
    monkeypatch.setattr(row_files, "BATCH_ROWS", 500)
    bare = examples_table().drop_columns(["clicked", "bought", "split"])
    parts = tmp_path / "parts"
    parts.mkdir()
    pq.write_table(bare.slice(0, 700), parts / "a.parquet")
    pq.write_table(bare.slice(700), parts / "b.parquet")
    heard: list[tuple[int, int]] = []
    rows = score_file(
        Run.load(run), parts, tmp_path / "scores.parquet", keep=["at"], told=lambda *how: heard.append(how)
    )
    (run / FILE).unlink()
    found = pq.read_table(tmp_path / "scores.parquet")
    assert rows == found.num_rows == 1200
    assert heard[-1] == (1200, 1200)
    assert found["row"].to_pylist() == list(range(1200))
    for name in ("user_id", "item_id", "at"):
        assert found[name].to_pylist() == bare[name].to_pylist()
    score_NT = np.stack([found["score_click"].to_numpy(), found["score_buy"].to_numpy()], axis=1)
    np.testing.assert_allclose(score_NT, expected, atol=1e-6)


def test_ids_that_some_parts_store_as_floats_are_written_as_the_numbers_they_are(
    run: Path, tmp_path: Path
) -> None:
    table, parts = examples_table(), tmp_path / "parts"
    parts.mkdir()
    pq.write_table(table.slice(0, 600), parts / "a.parquet")
    ids = table["user_id"].cast(pa.float64())
    floats = table.set_column(table.column_names.index("user_id"), "user_id", ids)
    pq.write_table(floats.slice(600), parts / "b.parquet")
    score_file(Run.load(run), parts, tmp_path / "scores.parquet")
    found = pq.read_table(tmp_path / "scores.parquet")
    assert found.schema.field("user_id").type == pa.int64()
    assert found["user_id"].to_pylist() == table["user_id"].to_pylist()


def test_what_cannot_be_scored_leaves_no_file_and_the_one_before_as_it_was(run: Path, tmp_path: Path) -> None:
    model, output = Run.load(run), tmp_path / "scores.parquet"
    pq.write_table(examples_table(), tmp_path / "rows.parquet")
    score_file(model, tmp_path / "rows.parquet", output)
    before = output.read_bytes()
    pq.write_table(with_value(examples_table(), "price", 900, float("inf")), tmp_path / "rows.parquet")
    with pytest.raises(ExamplesError, match="column 'price', row 900"):
        score_file(model, tmp_path / "rows.parquet", output)
    pq.write_table(examples_table().drop_columns("tags"), tmp_path / "rows.parquet")
    with pytest.raises(ExamplesError, match=r"column 'tags': no such column \(field 'tags'\)"):
        score_file(model, tmp_path / "rows.parquet", output)
    named = examples_table().append_column("row", pa.array(range(1200)))
    pq.write_table(named, tmp_path / "rows.parquet")
    with pytest.raises(SettingError, match="row: the file of scores has a column of its own"):
        score_file(model, tmp_path / "rows.parquet", output, keep=["row"])
    assert output.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows.parquet", "scores.parquet"]
