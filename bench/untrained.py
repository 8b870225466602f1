"""Models and rows that were never trained nor observed, of the sizes that benchmarks are about.

Twenty fields, 8 of them the user's and the context's (`bench/models.py`), random weights and random rows: the
time that a request takes depends on neither.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx

from bench.models import request_of, schema_text
from rankd_contract.encoding import Block
from rankd_contract.keys import entity_hashes, key_prefix
from rankd_contract.manifest import GOLDEN, GRAPH, ITEM_PART, REST, SCHEMA, BundleManifest
from rankd_contract.packing import RowFormat
from rankd_contract.repository import publish
from rankd_contract.schema import Entity, FeatureSchema
from rankd_contract.signature import inputs, outputs
from rankd_export.golden import to_npz
from rankd_export.graph import OPSET
from rankd_export.item_part import split
from rankd_export.parity import run_onnx
from rankd_export.precision import GOLDEN_TOLERANCE, Precision, reduced
from rankd_service.features.redis_bulk import open_bulk

__all__ = ["USERS", "fill", "packed", "published"]

USERS = 1000


def published(
    repository: Path,
    name: str,
    schema: FeatureSchema,
    graph: onnx.ModelProto,
    precision: Precision = Precision.FP32,
) -> None:
    """Publish a bundle as `rankd export` does, of weights that were never trained; `graph` is in float32."""
    graph = reduced(graph, precision)
    golden = [request_of(schema, n, 1, seed=n) for n in (1, 7, 100)]
    manifest = BundleManifest(
        model=name,
        version=0,
        architecture=name,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        schema_fingerprint=f"{schema.fingerprint:016x}",
        tasks=tuple(t.name for t in schema.tasks),
        fusion={t.name: 1.0 for t in schema.tasks},
        inputs=inputs(schema),
        outputs=outputs(schema),
        opset=OPSET,
        golden_tolerance=GOLDEN_TOLERANCE[precision],
    )
    files: dict[str, bytes | Path] = {
        GRAPH: graph.SerializeToString(),
        SCHEMA: schema_text(name).encode(),
        GOLDEN: to_npz(golden, [scores for _, scores in run_onnx(graph, golden)]),
    }
    made = split(graph)
    if made is not None:
        files |= {ITEM_PART: made.item.SerializeToString(), REST: made.rest.SerializeToString()}
    publish(repository, manifest, files)


def fill(url: str, schema: FeatureSchema, items: int) -> None:
    """Write a row for every item and for every user."""
    store = open_bulk(url, 30.0)
    for entity, count in ((Entity.USER, USERS), (Entity.ITEM, items)):
        for start in range(0, count, 20_000):
            store.send(*packed(schema, entity, range(start, min(count, start + 20_000)), seed=start), None)
        store.drain()
    store.close()


def packed(
    schema: FeatureSchema, entity: Entity, numbers: Sequence[int], seed: int
) -> tuple[list[str], list[bytes]]:
    """Keys and rows of entities by number, drawn at random."""
    (view,) = schema.of(entity)
    drawn = request_of(schema, len(numbers), len(numbers), seed)
    block = Block(drawn[f"in_{entity.value}_ids"], drawn[f"in_{entity.value}_values"])
    ids = [f"{entity.value[0]}{number}" for number in numbers]
    times_ms = np.full(len(ids), int(time.time() * 1000), np.int64)
    rows = RowFormat(schema, view).pack(block, entity_hashes(view, ids), times_ms)
    prefix = key_prefix("rankd", schema, view)
    return [prefix + one for one in ids], rows
