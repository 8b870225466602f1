"""Builds tiny real bundles whose scores show which rows they were computed from.

`echo` returns the item's id column as the score of the first task and the user's as the second, so that any
row that lands on another candidate is visible in the answer. `echo_version` returns the number of its
version for every candidate, so that an answer of two versions is visible. `sleepy` takes a set time a row.
Every bundle is a real one: an ONNX graph with the contract's signature, golden requests recorded with
onnxruntime, published through the contract.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rankd_contract.bundle import Bundle
from rankd_contract.columns import Column
from rankd_contract.encoding import Block, Encoder
from rankd_contract.keys import entity_hashes, key_prefix
from rankd_contract.manifest import GOLDEN, GRAPH, ITEM_PART, REST, SCHEMA, BundleManifest
from rankd_contract.packing import RowFormat
from rankd_contract.repository import publish
from rankd_contract.schema import Entity, FeatureSchema
from rankd_contract.schema_file import parse_schema
from rankd_contract.signature import LOGITS, ROW, SCORES, TensorSpec, inputs, outputs
from rankd_export.item_part import split
from rankd_service.inference.batch import Batch

__all__ = [
    "BUCKETS",
    "SCHEMA_TEXT",
    "batch_of",
    "echo",
    "echo_version",
    "item_rows",
    "publish_bundle",
    "publish_files_over",
    "rows",
    "sleepy",
    "table",
    "user_rows",
]

BUCKETS = 1 << 20  # so that an id and its neighbours stay apart in float32
OPSET = 17

SCHEMA_TEXT = f"""
rankd_schema: 1
name: films
views:
  - name: user
    entity: user
    key: user_id
    fields:
      - {{name: user_id, kind: categorical, dtype: string, hash: {BUCKETS}}}
      - {{name: age, kind: numeric, dtype: float32, default: 30, transform: log1p}}
      - {{name: recent, kind: sequence, dtype: string, shares: item_id, max_length: 5}}
  - name: item
    entity: item
    key: item_id
    max_age: 30d
    on_stale: default
    fields:
      - {{name: item_id, kind: categorical, dtype: string, hash: {BUCKETS}}}
      - {{name: genre, kind: categorical, dtype: string, vocabulary: [drama, comedy, crime], default: drama}}
      - {{name: price, kind: numeric, dtype: float32, default: 0.5}}
      - {{name: year, kind: numeric, dtype: int64, transform: [{{bucketize: [1980, 1990, 2000]}}]}}
  - name: context
    entity: context
    fields:
      - {{name: hour, kind: categorical, source: timestamp, derive: hour_of_day}}
      - {{name: device, kind: categorical, dtype: string, vocabulary: [phone, desktop]}}
tasks:
  - {{name: liked, label: liked, weight: 1}}
  - {{name: loved, label: loved, weight: 3}}
"""

Graph = Callable[[FeatureSchema], onnx.GraphProto]


def echo(schema: FeatureSchema) -> onnx.GraphProto:
    """Scores: first id of the item / BUCKETS, first id of the user / BUCKETS, then 0 for further tasks."""
    b = _Builder()
    item = b.add(
        "Div", b.add("Cast", _first(b, "in_item_ids"), to=TensorProto.FLOAT), b.constant(np.float32(BUCKETS))
    )
    user = b.add(
        "Div", b.add("Cast", _first(b, "in_user_ids"), to=TensorProto.FLOAT), b.constant(np.float32(BUCKETS))
    )
    columns = [item, b.add("Gather", user, ROW, axis=0)]
    columns += [b.add("Mul", item, b.constant(np.float32(0)))] * (len(schema.tasks) - len(columns))
    return b.finish(schema, b.add("Concat", *columns[: len(schema.tasks)], axis=1))


def echo_version(version: int) -> Graph:
    """Scores: the number of the version in hundredths, for every candidate and task; 1 to 99."""

    def build(schema: FeatureSchema) -> onnx.GraphProto:
        b = _Builder()
        item = b.add("Cast", _first(b, "in_item_ids"), to=TensorProto.FLOAT)
        score = b.add(
            "Add", b.add("Mul", item, b.constant(np.float32(0))), b.constant(np.float32(version / 100))
        )
        return b.finish(schema, b.add("Concat", *[score] * len(schema.tasks), axis=1))

    return build


def price(schema: FeatureSchema) -> onnx.GraphProto:
    """Scores: the item's first number for every task, NaN where it is negative."""
    b = _Builder()
    value = b.add("Slice", "in_item_values", b.constant([0]), b.constant([1]), b.constant([1]))
    score = b.add("Sqrt", b.add("Mul", value, b.add("Abs", value)))
    return b.finish(schema, b.add("Concat", *[score] * len(schema.tasks), axis=1))


def table(schema: FeatureSchema) -> onnx.GraphProto:
    """Scores: the item's row of a table, in which a first id from BUCKETS on cannot be looked up."""
    b = _Builder()
    rows = b.constant(np.arange(BUCKETS, dtype=np.float32) / BUCKETS)
    score = b.add("Gather", rows, _first(b, "in_item_ids"), axis=0)
    return b.finish(schema, b.add("Concat", *[score] * len(schema.tasks), axis=1))


def every_input(schema: FeatureSchema) -> onnx.GraphProto:
    """Scores: a sigmoid of the sum of all numbers and scaled ids, so that each input matters."""
    b = _Builder()
    parts = []
    for spec in inputs(schema)[:-1]:
        x = b.add("Cast", spec.name, to=TensorProto.FLOAT) if spec.dtype == "int32" else spec.name
        scale = np.float32(1 / BUCKETS if spec.dtype == "int32" else 0.1)
        total = b.add("ReduceSum", b.add("Mul", x, b.constant(scale)), b.constant([1]), keepdims=1)
        parts.append(total if spec.dims[0] == "N" else b.add("Gather", total, ROW, axis=0))
    score = b.add("Sigmoid", b.add("Sum", *parts))
    return b.finish(schema, b.add("Concat", *[score] * len(schema.tasks), axis=1))


def mlp(width: int = 256, depth: int = 3) -> Graph:
    """Scores of a network of about the cost of a real one; weights are random but fixed."""

    def build(schema: FeatureSchema) -> onnx.GraphProto:
        rng, b = np.random.default_rng(7), _Builder()
        parts = []
        for spec in inputs(schema)[:-1]:
            x = b.add("Cast", spec.name, to=TensorProto.FLOAT) if spec.dtype == "int32" else spec.name
            x = b.add("Mul", x, b.constant(np.float32(1 / BUCKETS))) if spec.dtype == "int32" else x
            parts.append(x if spec.dims[0] == "N" else b.add("Gather", x, ROW, axis=0))
        x, size = b.add("Concat", *parts, axis=1), sum(int(s.dims[1]) for s in inputs(schema)[:-1])
        for wide in [width] * depth:
            weights = (rng.standard_normal((size, wide)) / np.sqrt(size)).astype(np.float32)
            x, size = b.add("Relu", b.add("MatMul", x, b.constant(weights))), wide
        weights = (rng.standard_normal((size, len(schema.tasks))) / np.sqrt(size)).astype(np.float32)
        return b.finish(schema, b.add("Sigmoid", b.add("MatMul", x, b.constant(weights))))

    return build


def sleepy(row_us: float, width: int = 256) -> Graph:
    """The scores of an `mlp` as deep as it must be to take about that long a row here, on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    layers, x = 20, np.ones((100, width), np.float32)
    b, last = _Builder(), "x"
    for _ in range(layers):
        weights = np.full((width, width), 1 / width, np.float32)
        last = b.add("Relu", b.add("MatMul", last, b.constant(weights)))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        b.nodes,
        "layers",
        [value("x", TensorProto.FLOAT, ["N", width])],
        [value(last, TensorProto.FLOAT, ["N", width])],
        b.constants,
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    session: Any = ort.InferenceSession(
        built.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    spent_s = []
    for _ in range(10):
        began_s = time.perf_counter()
        session.run(None, {"x": x})
        spent_s.append(time.perf_counter() - began_s)
    layer_us = min(spent_s) * 1e6 / len(x) / layers
    return mlp(width, max(1, round(row_us / layer_us)))


def publish_bundle(
    repository: Path,
    model: str = "films",
    graph: Graph = echo,
    schema_text: str = SCHEMA_TEXT,
    *,
    in_two: bool = True,
    **manifest: Any,
) -> Bundle:
    """Publish a bundle, its graph in two as well where it can be cut.

    `manifest` overrides its fields, `golden` among them the recorded arrays.
    """
    schema = parse_schema(schema_text)
    built = helper.make_model(graph(schema), opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    blob = built.SerializeToString()
    golden = manifest.pop("golden", None) or _golden(schema, blob)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **golden)
    fields: dict[str, Any] = {
        "model": model,
        "version": 0,
        "architecture": "echo",
        "created_at": "2026-01-01T00:00:00Z",
        "schema_fingerprint": f"{schema.fingerprint:016x}",
        "tasks": tuple(t.name for t in schema.tasks),
        "fusion": {t.name: t.weight for t in schema.tasks},
        "inputs": inputs(schema),
        "outputs": outputs(schema),
        "opset": OPSET,
        "golden_tolerance": 1e-5,
    }
    files: dict[str, bytes | Path] = {GRAPH: blob, SCHEMA: schema_text.encode(), GOLDEN: buffer.getvalue()}
    parts = split(built) if in_two else None
    if parts is not None:
        files |= {ITEM_PART: parts.item.SerializeToString(), REST: parts.rest.SerializeToString()}
    return publish(repository, BundleManifest(**{**fields, **manifest}), files)


def publish_files_over(bundle: Bundle, repository: Path, files: dict[str, bytes]) -> Bundle:
    """Publish a bundle again as its model's next version, with some files replaced."""
    kept: dict[str, bytes | Path] = {name: bundle.path / name for name in bundle.manifest.files}
    return publish(repository, bundle.manifest, {**kept, **files})


def rows(
    schema: FeatureSchema,
    view_name: str,
    columns: dict[str, list[Any]],
    event_time_s: float,
    namespace: str = "rankd",
) -> dict[str, bytes]:
    """Encode and pack rows of one view, given by source column -> what a store holds, by key."""
    view = schema.view(view_name)
    encoder, n = Encoder(schema, view.entity), len(columns[view.key])
    nulls: list[Any] = [None] * n
    raw = {at.field.source: (columns.get(at.field.source, nulls), at.field) for at in encoder.layout.fields}
    whole = encoder.encode({source: Column.from_python(*given) for source, given in raw.items()}, n)
    mine = [at for at in encoder.layout.fields if at.view == view_name]
    ids_at, values_at = (
        slice(min(s.start for s in slices), max(s.stop for s in slices))
        for slices in ([at.ids for at in mine], [at.values for at in mine])
    )
    block = Block(
        np.ascontiguousarray(whole.ids[:, ids_at]), np.ascontiguousarray(whole.values[:, values_at])
    )
    ids = [str(i) for i in columns[view.key]]
    times = np.full(n, int(event_time_s * 1000), np.int64)
    packed = RowFormat(schema, view).pack(block, entity_hashes(view, ids), times)
    prefix = key_prefix(namespace, schema, view)
    return {prefix + one: row for one, row in zip(ids, packed, strict=True)}


def user_rows(schema: FeatureSchema, ids: Sequence[str], event_time_s: float) -> dict[str, bytes]:
    """Pack rows of the test schema's users."""
    columns: dict[str, list[Any]] = {
        "user_id": list(ids),
        "age": [20.0 + len(i) for i in ids],
        "recent": [["1", "2"] for _ in ids],
    }
    return rows(schema, "user", columns, event_time_s)


def item_rows(
    schema: FeatureSchema,
    ids: Sequence[str],
    event_time_s: float,
    prices: Sequence[float | None] | None = None,
) -> dict[str, bytes]:
    """Pack rows of the test schema's items."""
    columns: dict[str, list[Any]] = {
        "item_id": list(ids),
        "genre": [("drama", "comedy", "crime")[len(i) % 3] for i in ids],
        "price": list(prices) if prices is not None else [0.25] * len(ids),
        "year": [1985] * len(ids),
    }
    return rows(schema, "item", columns, event_time_s)


def tensors_for(
    schema: FeatureSchema, num_users: int, num_items: int, seed: int = 0
) -> dict[str, NDArray[Any]]:
    """Random inputs of the right shapes, ids within their tables."""
    rng = np.random.default_rng(seed)
    sizes = {"R": num_users, "N": num_items}
    low = {
        e: min(schema.cardinality(f.field) for f in schema.layout(e).fields if f.field.num_ids)
        for e in Entity
    }
    tensors: dict[str, NDArray[Any]] = {}
    for spec in inputs(schema):
        shape = tuple(sizes[d] if isinstance(d, str) else d for d in spec.dims)
        if spec.name == ROW:
            tensors[ROW] = rng.integers(0, num_users, shape)
        elif spec.dtype == "int32":
            tensors[spec.name] = rng.integers(0, low[Entity(spec.name.split("_")[1])], shape, np.int32)
        else:
            tensors[spec.name] = rng.random(shape, np.float32)
    return tensors


def batch_of(tensors: dict[str, NDArray[Any]]) -> Batch:
    """What a run is given of candidates none of which is known by a stamp."""
    return Batch(tensors, np.zeros(len(tensors[ROW]), np.int64))


def _golden(schema: FeatureSchema, graph: bytes) -> dict[str, NDArray[Any]]:
    session: Any = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    wanted = [i.name for i in session.get_inputs()]
    golden: dict[str, NDArray[Any]] = {}
    for k, (num_users, num_items) in enumerate([(1, 3), (2, 7), (1, 1)]):
        tensors = tensors_for(schema, num_users, num_items, seed=k)
        golden |= {f"r{k}/{name}": array for name, array in tensors.items()}
        (golden[f"r{k}/{SCORES}"],) = session.run([SCORES], {n: tensors[n] for n in wanted})
    return golden


def _first(b: _Builder, name: str) -> str:
    return b.add("Slice", name, b.constant([0]), b.constant([1]), b.constant([1]))


class _Builder:
    """Adds nodes one by one and gives each output a name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, *args: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(args), [name], **attributes))
        return name

    def constant(self, value: Any) -> str:
        array = np.asarray(value)
        name = f"c{len(self.constants)}"
        self.constants.append(
            numpy_helper.from_array(array.astype(np.int64) if array.dtype.kind == "i" else array, name)
        )
        return name

    def finish(self, schema: FeatureSchema, scores: str) -> onnx.GraphProto:
        self.nodes.append(helper.make_node("Identity", [scores], [SCORES]))
        self.nodes.append(helper.make_node("Identity", [scores], [LOGITS]))
        ins, outs = [_value(s) for s in inputs(schema)], [_value(s) for s in outputs(schema)]
        return helper.make_graph(self.nodes, "graph", ins, outs, self.constants)


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    kinds = {"int32": TensorProto.INT32, "int64": TensorProto.INT64, "float32": TensorProto.FLOAT}
    return helper.make_tensor_value_info(spec.name, kinds[spec.dtype], list(spec.dims))
