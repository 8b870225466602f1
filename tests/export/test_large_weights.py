"""Weights above the 2 GB of a protobuf: exported, proved equal, and loaded as any others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from rankd_contract.manifest import WEIGHTS
from rankd_contract.schema_file import parse_schema
from rankd_export.errors import GraphRefused
from rankd_export.exporter import Variant, export_run
from rankd_export.graph import to_onnx
from rankd_export.parity import compare
from rankd_export.precision import Precision
from rankd_export.weights import load_back
from rankd_service.inference.loader import load_current
from rankd_service.settings_sources import load_settings
from rankd_training.models.registry import build
from rankd_training.runs import checkpoint
from tests.export.requests import random_request
from tests.export.test_graph import MOVIELENS, lively
from tests.support.tiny_run import invented_data, tiny_run

ROWS = 24_000_000  # of 24 numbers in float32: 2.3 GB


def widened(run: Path, rows: int) -> Path:
    """Give a run's films a table of so many rows, with weights to match; ids stay where they are."""
    small = checkpoint.load(run)
    text = (run / checkpoint.SCHEMA).read_text()
    assert text.count("hash: 8192") == 1
    wide = text.replace("hash: 8192", f"hash: {rows}")
    model = build("fm", parse_schema(wide), asdict(small.config))
    with torch.no_grad():
        model.embedding.table.weight.normal_(std=0.01)
    for name in (checkpoint.WEIGHTS, checkpoint.MODEL, checkpoint.SCHEMA):
        (run / name).unlink()
    checkpoint.save(run, model, wide.encode())
    return run


def room_for(folder: Path, num_bytes: int) -> bool:
    free = shutil.disk_usage(folder).free
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(free, memory) > num_bytes


@pytest.mark.slow
def test_tables_kept_apart_from_the_start_score_the_same(tmp_path: Path) -> None:
    model = lively("mlcc", MOVIELENS)
    example = {k: torch.from_numpy(v) for k, v in random_request(MOVIELENS, 7, 3, seed=0).items()}
    graph = to_onnx(model, MOVIELENS, example, apart=tmp_path)
    outside = [w for w in graph.graph.initializer if w.data_location == TensorProto.EXTERNAL]
    compare(model, graph, [random_request(MOVIELENS, 20, 2, seed=1)], apart=tmp_path)
    whole = to_onnx(model, MOVIELENS, example)
    assert bool(outside) == any(len(w.raw_data) >= 1 << 20 for w in whole.graph.initializer)
    load_back(graph, tmp_path)
    assert {w.name: w.raw_data for w in graph.graph.initializer} == {
        w.name: w.raw_data for w in whole.graph.initializer
    }


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that is emptied at once: gigabytes would stay for three runs."""
    if not room_for(tmp_path, 11 << 30):
        pytest.skip("needs 11 GiB of free memory and disk")
    with TemporaryDirectory(dir=tmp_path) as name:
        yield Path(name)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_table_of_more_than_2_gb_is_exported_and_loaded(folder: Path) -> None:
    data = invented_data(folder / "data")
    run = widened(tiny_run(data, folder / "run", "fm"), ROWS)
    bundle = export_run(run, folder / "bundles")
    assert bundle.manifest.files[WEIGHTS].bytes > 1 << 31
    assert bundle.graph.stat().st_size < 1 << 20
    assert max(size["max_score_error"] for size in bundle.manifest.parity["sizes"]) < 1e-5
    assert load_current(folder / "bundles", "fm", load_settings()).card.version == 1
    variant = Variant(Precision.INT8_EMBEDDINGS, data / "examples.parquet", max_auc_loss=1)
    with pytest.raises(GraphRefused, match=r"the weights take 2\.\d\d GB, .* as fewer bits need it"):
        export_run(run, folder / "bundles", variant=variant)


@pytest.mark.parametrize(
    ("rows", "width", "kind"), [((1 << 28) + 8, 8, "int8"), ((1 << 27) + 8, 16, "float32")]
)
def test_lookups_beyond_two_to_the_31_numbers_are_right_on_the_cpu(
    tmp_path: Path, rows: int, width: int, kind: str
) -> None:
    """What refuses such tables is what CUDA kernels do with them; the file has holes and takes no room."""
    dtype = np.dtype(kind)
    ids = [0, rows // 2, (1 << 31) // width - 1, (1 << 31) // width, rows - 1]
    with (tmp_path / "t.bin").open("wb") as file:
        file.truncate(rows * width * dtype.itemsize)
        for k, row in enumerate(ids):
            file.seek(row * width * dtype.itemsize)
            file.write(np.full(width, k + 1, dtype).tobytes())
    of = helper.np_dtype_to_tensor_dtype(dtype)
    table = TensorProto(name="table", data_type=of, dims=[rows, width], data_location=TensorProto.EXTERNAL)
    table.external_data.add(key="location", value="t.bin")
    nodes = [helper.make_node("Gather", ["table", "ids"], ["found"])]
    takes = [helper.make_tensor_value_info("ids", TensorProto.INT32, ["N"])]
    gives = [helper.make_tensor_value_info("found", of, ["N", width])]
    graph = helper.make_graph(nodes, "lookup", takes, gives, [table])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
        tmp_path / "m.onnx",
    )
    session = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"ids": np.array(ids, np.int32)})
    np.testing.assert_array_equal(found[:, 0], np.arange(1, len(ids) + 1))
