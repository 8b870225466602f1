from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankd_training.data import catalog
from rankd_training.data.catalog import DataSet
from rankd_training.data.download import Progress
from rankd_training.data.origins import Origin
from rankd_training.data.prepared import load_record
from rankd_training.errors import DownloadFailed, OfflineError, RootNotWritable, UnknownDataSet

TABLES = {"examples": pa.table({"timestamp": [30, 10, 20]}), "users": pa.table({"user_id": [1]})}


class Source:
    """An origin that counts how often it was used, and fails while it is down."""

    def __init__(self, title: str, *, down: bool = False) -> None:
        self.down = down
        self.used = 0
        self.origin = Origin(title, f"digest of {title}", self.tables)

    def tables(self, downloads: Path, progress: Progress) -> Mapping[str, pa.Table]:
        assert downloads.is_dir()
        self.used += 1
        if self.down:
            raise DownloadFailed(f"{self.origin.title} is down")
        return TABLES


def tiny(*sources: Source) -> DataSet:
    return DataSet(
        name="tiny",
        description="Three events.",
        licence="None needed.",
        citation="",
        preparation=1,
        time_column=("examples", "timestamp"),
        schema_name="movielens-100k.yaml",
        origins=tuple(source.origin for source in sources),
    )


@pytest.fixture
def source() -> Source:
    return Source("first")


@pytest.fixture(autouse=True)
def listed(source: Source, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    data_set = tiny(source)
    monkeypatch.setitem(catalog.DATA_SETS, "tiny", data_set)
    return data_set


def test_a_data_set_is_prepared_once(source: Source, tmp_path: Path) -> None:
    assert not catalog.is_prepared("tiny", root=tmp_path)
    folder = catalog.get("tiny", root=tmp_path)
    assert folder == tmp_path / "tiny"
    assert pq.read_table(folder / "examples.parquet").equals(TABLES["examples"])
    assert catalog.is_prepared("tiny", root=tmp_path)
    assert catalog.get("tiny", root=tmp_path) == folder
    assert source.used == 1


def test_the_record_says_what_was_used_and_vouches_for_the_files(tmp_path: Path) -> None:
    folder = catalog.get("tiny", root=tmp_path)
    content = json.loads((folder / "dataset.json").read_text())
    assert content["provenance"] == {
        "name": "tiny",
        "source": "first",
        "source_sha256": "digest of first",
        "licence": "None needed.",
        "citation": "",
        "preparation": 1,
    }
    assert (content["first_event_s"], content["last_event_s"]) == (10, 30)
    assert content["files"].keys() == {"examples.parquet", "users.parquet"}
    assert load_record(folder).files["examples.parquet"].rows == 3


def test_the_next_source_serves_where_the_first_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Source("first", down=True), Source("second")
    monkeypatch.setitem(catalog.DATA_SETS, "tiny", tiny(first, second))
    assert load_record(catalog.get("tiny", root=tmp_path)).provenance.source == "second"
    catalog.get("tiny", root=tmp_path)
    assert (first.used, second.used) == (1, 1)


def test_with_every_source_down_the_error_says_which_why_and_what_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        catalog.DATA_SETS, "tiny", tiny(Source("first", down=True), Source("second", down=True))
    )
    with pytest.raises(OfflineError) as failure:
        catalog.get("tiny", root=tmp_path)
    for expected in ("first is down", "second is down", "RANKD_DATA", "movielens-synthetic", str(tmp_path)):
        assert expected in str(failure.value)
    assert [title for title, _ in failure.value.failures] == ["first", "second"]
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize("change", ["examples.parquet", "dataset.json"])
@pytest.mark.parametrize("how", ["removed", "altered"])
def test_a_damaged_folder_is_prepared_again(source: Source, tmp_path: Path, change: str, how: str) -> None:
    damaged = catalog.get("tiny", root=tmp_path) / change
    if how == "removed":
        damaged.unlink()
    else:
        damaged.write_bytes(damaged.read_bytes()[:-3])
    assert not catalog.is_prepared("tiny", root=tmp_path)
    load_record(catalog.get("tiny", root=tmp_path))
    assert source.used == 2


def test_a_newer_preparation_or_another_digest_prepares_again(
    source: Source, listed: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.get("tiny", root=tmp_path)
    monkeypatch.setitem(catalog.DATA_SETS, "tiny", replace(listed, preparation=2))
    assert load_record(catalog.get("tiny", root=tmp_path)).provenance.preparation == 2
    other = replace(source.origin, sha256="another digest")
    monkeypatch.setitem(catalog.DATA_SETS, "tiny", replace(listed, preparation=2, origins=(other,)))
    assert load_record(catalog.get("tiny", root=tmp_path)).provenance.source_sha256 == "another digest"
    assert source.used == 3
    assert {path.name for path in tmp_path.iterdir()} == {"tiny", ".downloads"}, "nothing old is left"


def test_a_preparation_that_fails_leaves_no_folder(
    listed: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = replace(listed, time_column=("examples", "absent"))
    monkeypatch.setitem(catalog.DATA_SETS, "tiny", broken)
    with pytest.raises(KeyError):
        catalog.get("tiny", root=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".downloads"}


def test_of_many_who_ask_at_once_one_prepares(source: Source, tmp_path: Path) -> None:
    together = Barrier(8)

    def ask() -> Path:
        together.wait(timeout=10)
        return catalog.get("tiny", root=tmp_path)

    with ThreadPoolExecutor(8) as pool:
        folders = [pool.submit(ask) for _ in range(8)]
        assert {folder.result() for folder in folders} == {tmp_path / "tiny"}
    assert source.used == 1


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownDataSet, match=r"'moovielens'; known: movielens-100k, movielens-synthetic"):
        catalog.get("moovielens")


def test_a_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RootNotWritable, match=r"file.*RANKD_DATA"):
        catalog.get("tiny", root=tmp_path / "file")


def test_the_root_is_the_variable_else_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RANKD_DATA", "~/films")
    assert catalog.default_root() == tmp_path / "films"
    assert catalog.get("tiny") == tmp_path / "films" / "tiny"
    monkeypatch.setenv("RANKD_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert catalog.default_root() == tmp_path / "cache" / "rankd" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert catalog.default_root() == tmp_path / ".cache" / "rankd" / "data"


def test_every_data_set_says_what_it_is_and_on_what_terms() -> None:
    assert catalog.names()[:2] == ("movielens-100k", "movielens-synthetic")
    for name in catalog.names():
        data_set = catalog.describe(name)
        assert data_set.name == name
        assert data_set.description
        assert data_set.licence.endswith(".")
        assert bool(data_set.origins) != (data_set.local is not None)
        assert data_set.schema.is_file()


def test_the_synthetic_data_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", None)
    folder = catalog.get("movielens-synthetic", root=tmp_path)
    assert load_record(folder).files["examples.parquet"].rows == 100_000
