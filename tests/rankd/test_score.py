from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from tests.rankd.judged import rankd, refused
from tests.training.tables import examples_table


def test_rows_without_labels_are_scored_by_another_verb_that_evaluate_names(
    place: Path, tmp_path: Path
) -> None:
    pq.write_table(examples_table().drop(["clicked", "bought", "split"]), tmp_path / "new.parquet")
    problem = refused("evaluate", place / "run", "--examples", tmp_path / "new.parquet", code=1)
    assert "column 'clicked': no such column (the label of task 'click'; `rankd score` scores rows" in problem
    asked = ("score", place / "run", "--examples", tmp_path / "new.parquet", "--out", tmp_path / "s.parquet")
    assert "1,200 rows scored" in rankd(*asked, "--keep", "at")
    assert pq.read_schema(tmp_path / "s.parquet").names == [
        "row",
        "user_id",
        "item_id",
        "at",
        "score_click",
        "score_buy",
    ]
    assert json.loads(rankd(*asked, "--json"))["rows"] == 1200
    assert "did you mean 'tags'?" in refused(*asked, "--keep", "tag", code=1)
    (tmp_path / "rows").mkdir()
    (tmp_path / "new.parquet").rename(tmp_path / "rows" / "new.parquet")
    within = (
        "score",
        place / "run",
        "--examples",
        tmp_path / "rows",
        "--out",
        tmp_path / "rows" / "s.parquet",
    )
    assert "lies in" in refused(*within)
    (tmp_path / "rows" / "new.parquet").rename(tmp_path / "new.parquet")
    same = ("score", place / "run", "--examples", tmp_path / "new.parquet", "--out", tmp_path / "new.parquet")
    assert "is read by this command and would be lost" in refused(*same)
