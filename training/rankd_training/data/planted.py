"""Invented rows of any number with a known truth: what a model should find is planted, nothing else is there.

Every categorical field has Zipf-like ids, and every id a sign, + or -, each half of the time. An interaction
of order k is the product of the signs of k fields: any k - 1 of them say nothing. Main effects are a number
an id. A sequence lists earlier ids of a field, and counts by whether its majority has the present id's sign.
Each task is 1 with probability sigmoid(bias + strength x its interactions + main effects).

Legend: n rows of a chunk, F fields, I interactions of a task.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rankd_contract.hashing import hash_ints, salt
from rankd_training.data.splits import SPLIT, SPLIT_NAMES
from rankd_training.errors import SettingError

__all__ = ["PlantedConfig", "draw", "schema_text", "write_planted"]

CHUNK_ROWS = 1 << 16
CALIBRATION_ROWS = 1 << 15
GENERATOR = 1
_SPLIT_SHARES = (0.8, 0.1)
_LARGEST_ID = 1 << 30

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PlantedConfig:
    """What to invent. The same configuration gives the same rows, whatever wrote how many before.

    Attributes:
        rows: how many.
        fields: categorical fields f1, f2, ...
        cardinality: ids a field; even, so that each sign has half of them.
        zipf: the k-th most frequent pair of ids is about k^-zipf as frequent as the first; 0 is uniform.
        numbers: plain numbers x1, x2, ..., normal, each with a linear effect.
        sequences: histories s1, s2, ... of the ids of f1, f2, ...
        length: of the longest history.
        tasks: labels, named label_1, label_2, ... (`label` where there is one).
        order: how many fields an interaction joins.
        interactions: a task; fields may be in several.
        strength: of each interaction in the logit.
        main: standard deviation of a field's main effects.
        base_rate: share of ones.
        seed: of everything.
    """

    rows: int
    fields: int = 39
    cardinality: int = 1000
    zipf: float = 1.05
    numbers: int = 0
    sequences: int = 0
    length: int = 20
    tasks: int = 1
    order: int = 3
    interactions: int = 3
    strength: float = 1.0
    main: float = 0.1
    base_rate: float = 0.25
    seed: int = 17

    def __post_init__(self) -> None:
        if min(self.rows, self.fields, self.tasks, self.order, self.length) < 1:
            raise SettingError(f"rows, fields, tasks, order and length must be at least 1: {self}")
        if self.cardinality % 2 or not 0 < self.cardinality <= _LARGEST_ID:
            raise SettingError(
                f"cardinality {self.cardinality}: expected an even number of at most {_LARGEST_ID}"
            )
        if self.order > self.fields or self.sequences > self.fields:
            raise SettingError(
                f"order {self.order}, sequences {self.sequences}: expected no more than fields, {self.fields}"
            )
        if not 0 < self.base_rate < 1 or self.zipf < 0:
            raise SettingError(
                f"base_rate {self.base_rate}, zipf {self.zipf}: expected 0 to 1, and 0 or more"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """The label columns."""
        return ("label",) if self.tasks == 1 else tuple(f"label_{t + 1}" for t in range(self.tasks))

    def planted(self) -> list[list[list[int]]]:
        """The fields of each interaction of each task, counted from 0."""
        rng = np.random.default_rng([self.seed, 1])
        return [
            [
                sorted(rng.choice(self.fields, self.order, replace=False).tolist())
                for _ in range(self.interactions)
            ]
            for _ in range(self.tasks)
        ]


def write_planted(
    folder: Path, config: PlantedConfig, *, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write examples.parquet, schema.yaml and planted.json, a chunk at a time; `folder` appears whole.

    Raises:
        SettingError: the folder is there already.
    """
    if folder.exists():
        raise SettingError(f"{folder} exists; choose another folder or remove this one")
    staging = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    staging.mkdir(parents=True)
    try:
        bias_T = _biases(config)
        writer: pq.ParquetWriter | None = None
        for chunk, first in enumerate(range(0, config.rows, CHUNK_ROWS)):
            rows = min(CHUNK_ROWS, config.rows - first)
            table = _table(config, draw(config, rows, chunk), bias_T)
            if writer is None:
                writer = pq.ParquetWriter(staging / "examples.parquet", table.schema, compression="zstd")
            writer.write_table(table)
            if progress is not None:
                progress(first + rows, config.rows)
        assert writer is not None
        writer.close()
        (staging / "schema.yaml").write_text(schema_text(config), encoding="utf-8")
        truth = {"generator": GENERATOR, "config": asdict(config), "interactions": config.planted()}
        (staging / "planted.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")
        staging.replace(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def schema_text(config: PlantedConfig) -> str:
    """The schema of what is written: one view of rows; tables as large as there are ids."""
    places = range(1, config.fields + 1)
    fields = [f"{{name: f{f}, kind: categorical, dtype: int64, hash: {config.cardinality}}}" for f in places]
    numbers = range(1, config.numbers + 1)
    fields += [f"{{name: x{x}, kind: numeric, dtype: float32, default: 0.0}}" for x in numbers]
    fields += [
        f"{{name: s{s}, kind: sequence, dtype: int64, shares: f{s}, max_length: {config.length}}}"
        for s in range(1, config.sequences + 1)
    ]
    lines = [
        "# Invented rows; planted.json says what is planted.",
        "rankd_schema: 1",
        "name: planted",
        "views:",
        "  - name: row",
        "    entity: item",
        "    key: row",
        "    fields:",
        *(f"      - {field}" for field in fields),
        "tasks:",
        *(f"  - {{name: {label}}}" for label in config.labels),
    ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Drawn:
    """One chunk: ids, numbers, histories (newest first) as offsets and ids, the logits without bias, dice."""

    id_nF: npt.NDArray[np.int32]
    number_nX: npt.NDArray[np.float32]
    histories: list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]
    logit_nT: Floats
    dice_nT: Floats
    split_n: npt.NDArray[np.int8]


def draw(config: PlantedConfig, rows: int, chunk: int) -> Drawn:
    """Invent one chunk of at most CHUNK_ROWS rows; no chunk depends on another."""
    rng = np.random.default_rng([config.seed, 2, chunk])
    id_Fn = np.stack([_ids(config, rng, rows) for _ in range(config.fields)])
    number_nX = rng.standard_normal((rows, config.numbers), np.float32)
    sign_Fn = 1 - 2 * (id_Fn & 1).astype(np.int8)
    histories, agree_Sn = [], np.zeros((config.sequences, rows))
    for s in range(config.sequences):
        offset_n = np.r_[0, np.cumsum(rng.integers(0, config.length + 1, rows))].astype(np.int32)
        past = _ids(config, rng, int(offset_n[-1]))
        sum_n = np.diff(np.r_[0, np.cumsum(1 - 2 * (past & 1))][offset_n])
        agree_Sn[s] = np.sign(sum_n) * sign_Fn[s]
        histories.append((offset_n, past))
    shared_n = sum((_main(config, f, id_Fn[f]) for f in range(config.fields)), np.zeros(rows))
    shared_n += 0.5 * number_nX.sum(axis=1) + config.strength * agree_Sn.sum(axis=0)
    logit_nT = np.stack(
        [
            shared_n + config.strength * sum(sign_Fn[fields].prod(axis=0, dtype=np.int64) for fields in task)
            for task in config.planted()
        ],
        axis=1,
    )
    dice_nT = rng.random((rows, config.tasks))
    split_n = np.searchsorted(np.cumsum(_SPLIT_SHARES), rng.random(rows), side="right").astype(np.int8)
    return Drawn(np.ascontiguousarray(id_Fn.T), number_nX, histories, logit_nT, dice_nT, split_n)


def _ids(config: PlantedConfig, rng: np.random.Generator, count: int) -> npt.NDArray[np.int32]:
    """Zipf-like: a pair of ids by the inverse of a bounded power law, and a coin for which of the two."""
    pairs, u = config.cardinality // 2, rng.random(count)
    if abs(config.zipf - 1) < 1e-9:  # noqa: PLR2004  # the power law's own special case
        rank = np.expm1(u * np.log1p(pairs))
    else:
        power = 1 - config.zipf
        rank = (u * ((pairs + 1.0) ** power - 1) + 1) ** (1 / power) - 1
    pair = np.minimum(rank.astype(np.int32), np.int32(pairs - 1))
    ids: npt.NDArray[np.int32] = 2 * pair + rng.integers(0, 2, count, np.int32)
    return ids


def _main(config: PlantedConfig, field: int, id_n: npt.NDArray[np.int32]) -> Floats:
    """A number an id, of mean 0 and deviation `main`, that needs no table: read off a hash of the id."""
    if config.main == 0:
        return np.zeros(len(id_n))
    # Both ids of a pair have one main effect, so that a sign shows in interactions alone.
    unit_n = hash_ints(id_n.astype(np.int64) >> 1, salt(f"{config.seed} f{field}")) / 2.0**64
    effect: Floats = config.main * np.sqrt(12) * (unit_n - 0.5)
    return effect


def _biases(config: PlantedConfig) -> Floats:
    """The bias a task that brings its share of ones to the base rate, by bisection on a sample."""
    logit_nT = draw(config, CALIBRATION_ROWS, 1 << 40).logit_nT
    low_T, high_T = np.full(config.tasks, -40.0), np.full(config.tasks, 40.0)
    for _ in range(60):
        bias_T: Floats = (low_T + high_T) / 2
        above_T = _sigmoid(logit_nT + bias_T).mean(axis=0) > config.base_rate
        low_T, high_T = np.where(above_T, low_T, bias_T), np.where(above_T, bias_T, high_T)
    return bias_T


def _table(config: PlantedConfig, drawn: Drawn, bias_T: Floats) -> pa.Table:
    truth_nT = _sigmoid(drawn.logit_nT + bias_T)
    columns: dict[str, Any] = {}
    for f in range(config.fields):
        columns[f"f{f + 1}"] = pa.array(drawn.id_nF[:, f])
    for x in range(config.numbers):
        columns[f"x{x + 1}"] = pa.array(drawn.number_nX[:, x])
    for s, (offset_n, past) in enumerate(drawn.histories):
        offsets: Any = pa.array(offset_n)
        columns[f"s{s + 1}"] = pa.ListArray.from_arrays(offsets, pa.array(past))
    for t, label in enumerate(config.labels):
        columns[label] = pa.array((drawn.dice_nT[:, t] < truth_nT[:, t]).astype(np.int8))
        columns[f"true_{label}"] = pa.array(truth_nT[:, t].astype(np.float32))
    columns[SPLIT] = pa.DictionaryArray.from_arrays(drawn.split_n, pa.array(SPLIT_NAMES, pa.string()))
    return pa.table(columns)


def _sigmoid(x: Floats) -> Floats:
    positive: Floats = 1 / (1 + np.exp(-x))
    return positive
