"""Published forms of public CTR data sets that the user brings: Criteo, Avazu, Frappe, MovieLens 1M, feeds.

Each is read as its publisher ships it. Ids stay as they are; hashing and scaling are the schema's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rankd_training.data.conversion import Files, Format, Role
from rankd_training.data.csv_files import INT, TEXT, stream
from rankd_training.data.feeds import KUAIRAND, TAOBAO_ADS
from rankd_training.data.libsvm import LibsvmFile
from rankd_training.data.movielens_1m import read_movielens_1m
from rankd_training.errors import ConversionRefused

__all__ = ["FORMATS", "describe"]

_CRITEO_NUMBERS = tuple(f"I{k}" for k in range(1, 14))
_CRITEO_NAMES = tuple(f"C{k}" for k in range(1, 27))
_CRITEO = ("label", *_CRITEO_NUMBERS, *_CRITEO_NAMES)
_AVAZU_CODES = ("C1", "banner_pos", "device_type", "device_conn_type", *(f"C{k}" for k in range(14, 22)))
_AVAZU_TEXTS = (
    *("site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category"),
    *("device_id", "device_ip", "device_model"),
)
_FRAPPE = (
    *("user_id", "item_id", "daytime", "weekday", "isweekend"),
    *("homework", "cost", "weather", "country", "city"),
)
_FRAPPE_END_S = 1_388_534_399  # the study says no time but its end, 2013


def describe(name: str) -> Format:
    """The format of that name. Raises ConversionRefused naming the known ones."""
    try:
        return FORMATS[name]
    except KeyError:
        raise ConversionRefused(f"no format is called {name!r}; known: {', '.join(FORMATS)}") from None


def _criteo(files: Files) -> Iterator[pa.RecordBatch]:
    types = {
        **dict.fromkeys(("label", *_CRITEO_NUMBERS), INT),
        **dict.fromkeys(_CRITEO_NAMES, TEXT),
    }
    for path in files["train"]:
        yield from stream(path, types, delimiter="\t", header=_CRITEO)


def _avazu(files: Files) -> Iterator[pa.RecordBatch]:
    # Ids have up to 20 digits: more than int64 holds.
    texts = dict.fromkeys(("id", *_AVAZU_TEXTS), TEXT)
    types = {**texts, **dict.fromkeys(("click", "hour", *_AVAZU_CODES), INT)}
    for path in files["train"]:
        for batch in stream(path, types):
            yield batch.append_column("timestamp", _avazu_seconds(batch.column("hour")))


def _avazu_seconds(hour: Any) -> Any:
    """YYMMDDHH, UTC -> seconds since 1970."""
    stamp = pc.strptime(pc.cast(hour, TEXT), format="%y%m%d%H", unit="s")
    return pc.cast(stamp, INT)


def _frappe(files: Files) -> Iterator[pa.Table]:
    for split, role in (("train", "train"), ("valid", "valid"), ("test", "test")):
        for path in files[role]:
            source = LibsvmFile(path)
            ids = [f"id_{k + 1}" for k in range(len(_FRAPPE))]
            if ids[-1] not in source.schema.names or f"id_{len(_FRAPPE) + 1}" in source.schema.names:
                raise ConversionRefused(
                    f"{path}: expected {len(_FRAPPE)} entries a line: {', '.join(_FRAPPE)}"
                )
            for batch in source.batches([*ids, "label"]):
                table = pa.Table.from_batches([batch]).rename_columns([*_FRAPPE, "label"])
                splits = pa.array([split] * table.num_rows, TEXT)
                yield table.append_column("split", splits)


def _frappe_entities(files: Files, examples: Path) -> Mapping[str, pa.Table]:
    found = pq.read_table(examples, columns=["user_id", "item_id", "cost"])
    users = pa.table({"user_id": np.unique(found["user_id"].to_numpy())})
    items = found.group_by("item_id", use_threads=False).aggregate([("cost", "first")])
    items = items.rename_columns({"cost_first": "cost"}).sort_by("item_id")
    return {
        name: table.append_column("event_time", pa.array([_FRAPPE_END_S] * table.num_rows, INT))
        for name, table in (("users", users), ("items", items))
    }


def _movielens_1m(files: Files) -> Iterator[pa.Table]:
    yield read_movielens_1m(*(files[role][0] for role in ("ratings", "users", "movies")))["examples"]


def _movielens_1m_entities(files: Files, examples: Path) -> Mapping[str, pa.Table]:
    tables = read_movielens_1m(*(files[role][0] for role in ("ratings", "users", "movies")))
    return {name: tables[name] for name in ("users", "items")}


FORMATS = {
    known.name: known
    for known in (
        Format(
            name="criteo",
            description="Criteo Display Advertising Challenge (2014): 45.8 million impressions, train.txt",
            roles={"train": Role(r"(train|criteo.*)\.(txt|tsv|csv)(\.gz)?", "train.txt")},
            examples=_criteo,
        ),
        Format(
            name="avazu",
            description="Avazu Click-Through Rate Prediction (2014): 40.4 million impressions, train.csv",
            roles={"train": Role(r"(train|avazu.*)\.csv(\.gz)?", "train.csv")},
            examples=_avazu,
            advice="--split-time timestamp",
        ),
        Format(
            name="frappe",
            description="Frappe app usage in context, as published with NFM (He and Chua 2017) in libfm form",
            roles={
                "train": Role(r".*train.*\.libfm", "frappe.train.libfm"),
                "valid": Role(r".*valid.*\.libfm", "frappe.validation.libfm"),
                "test": Role(r".*test.*\.libfm", "frappe.test.libfm"),
            },
            examples=_frappe,
            entities=_frappe_entities,
        ),
        Format(
            name="movielens-1m",
            description="MovieLens 1M (GroupLens): 1,000,209 ratings by 6,040 users, 2000 to 2003",
            roles={
                "ratings": Role(r"ratings\.dat", "ratings.dat"),
                "users": Role(r"users\.dat", "users.dat"),
                "movies": Role(r"movies\.dat", "movies.dat"),
            },
            examples=_movielens_1m,
            entities=_movielens_1m_entities,
        ),
        TAOBAO_ADS,
        KUAIRAND,
    )
}
