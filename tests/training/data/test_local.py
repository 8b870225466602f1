from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankd_training.data import catalog
from rankd_training.data.catalog import DataSet
from rankd_training.data.local import LocalSource
from rankd_training.data.movielens_latest import EXAMPLES, ITEMS, USERS, read_latest
from rankd_training.data.prepared import load_record
from rankd_training.errors import MalformedSource, SourceAbsent

RATINGS = """userId,movieId,rating,timestamp
1,10,4.0,100
1,20,4.5,200
2,10,3.5,300
1,30,0.5,400
2,30,5.0,500
2,20,4.0,600
1,40,3.0,700
2,40,2.0,800
1,50,4.5,900
2,50,4.5,1000
"""
MOVIES = """movieId,title,genres
10,"City of Lost Children, The (1995)",Adventure|Drama
20,Film without a year,(no genres listed)
30,(500) Days of Summer (2009),Comedy
40,Unrated (1960) ,War
50,Last (2001),Drama
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def one_column(folder: Path) -> Mapping[str, pa.Table]:
    return {"examples": pq.read_table(folder / "rows.parquet").select(["x"])}


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> DataSet:
    source = LocalSource(("mine", "also-mine"), (("rows.parquet",),), "from the shop", one_column)
    data_set = DataSet("mine", "Rows.", "None needed.", "", 1, None, "diabetes130.yaml", local=source)
    monkeypatch.setitem(catalog.DATA_SETS, "mine", data_set)
    return data_set


def bring(root: Path, folder: str = "mine", **columns: list[int]) -> Path:
    (root / folder).mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns or {"x": [1, 2]}), root / folder / "rows.parquet")
    return root


@pytest.mark.usefixtures("mine")
def test_absent_files_are_answered_with_where_from_and_where_to(tmp_path: Path) -> None:
    with pytest.raises(SourceAbsent) as failure:
        catalog.get("mine", root=tmp_path / "data")
    for said in ("from the shop", "rows.parquet", str(tmp_path / "data" / "mine"), "rankd data get mine"):
        assert said in str(failure.value)
    assert not catalog.is_prepared("mine", root=tmp_path / "data")


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize("folder", ["mine", "also-mine"])
def test_files_are_prepared_elsewhere_and_their_digest_recorded(
    tmp_path: Path, cache: Path, folder: str
) -> None:
    root = bring(tmp_path / "data", folder)
    prepared = catalog.get("mine", root=root)
    assert prepared.is_relative_to(cache)
    assert [path.name for path in root.rglob("*")] == [folder, "rows.parquet"], "nothing beside the files"
    record = load_record(prepared)
    assert record.provenance.source == "your own rows.parquet"
    assert (record.first_event_s, record.last_event_s) == (None, None)
    assert catalog.is_prepared("mine", root=root)
    made = (prepared / "dataset.json").stat().st_mtime_ns
    assert catalog.get("mine", root=root) == prepared
    assert (prepared / "dataset.json").stat().st_mtime_ns == made, "prepared once"


@pytest.mark.usefixtures("mine")
def test_other_files_are_prepared_anew(tmp_path: Path) -> None:
    before = load_record(catalog.get("mine", root=bring(tmp_path / "data"))).provenance.source_sha256
    root = bring(tmp_path / "data", x=[7])
    assert not catalog.is_prepared("mine", root=root)
    prepared = catalog.get("mine", root=root)
    assert load_record(prepared).provenance.source_sha256 != before
    assert pq.read_table(prepared / "examples.parquet")["x"].to_pylist() == [7]


@pytest.mark.usefixtures("mine")
def test_files_of_another_form_are_named(tmp_path: Path) -> None:
    with pytest.raises(MalformedSource, match=r"mine: not in the expected form.*x"):
        catalog.get("mine", root=bring(tmp_path / "data", y=[1]))
    (tmp_path / "data" / "mine" / "rows.parquet").write_text("no Parquet")
    with pytest.raises(MalformedSource, match="not in the expected form"):
        catalog.get("mine", root=tmp_path / "data")


def test_movielens_latest_is_read_as_grouplens_publishes_it(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text(RATINGS)
    (tmp_path / "movies.csv").write_text(MOVIES)
    tables = read_latest(tmp_path)
    examples, users, items = tables["examples"], tables["users"], tables["items"]
    for table, schema in ((examples, EXAMPLES), (users, USERS), (items, ITEMS)):
        assert table.schema.equals(schema)
    assert examples["liked"].to_pylist() == [1, 1, 0, 0, 1, 1, 0, 0, 1, 1]
    assert examples["loved"].to_pylist() == [0, 1, 0, 0, 1, 0, 0, 0, 1, 1]
    assert examples["recent_liked"].to_pylist()[:7] == [[], [10], [], [20, 10], [], [30], [20, 10]]
    assert examples["split"].to_pylist() == ["train"] * 8 + ["valid", "test"]
    assert items["year"].to_pylist() == [1995, None, 2009, 1960, 2001]
    assert items["genres"].to_pylist()[:2] == [["Adventure", "Drama"], []]
    assert users["recent_liked"].to_pylist() == [[50, 20, 10], [50, 20, 30]]
    assert users["event_time"].to_pylist() == [900, 1000]
