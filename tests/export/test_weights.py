"""Large tables lie beside the graph, aligned, in the bundle's closed list; what is too large is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from rankd_contract.errors import CorruptBundle
from rankd_contract.manifest import WEIGHTS
from rankd_contract.repository import open_current
from rankd_contract.signature import SCORES
from rankd_export import weights
from rankd_export.errors import GraphRefused
from rankd_export.exporter import export_run
from rankd_export.parity import run_onnx
from rankd_export.weights import check_size, write_apart
from rankd_service.inference.loader import load_current
from rankd_service.settings_sources import load_settings
from tests.export.requests import random_request
from tests.export.test_graph import MOVIELENS, exported
from tests.support.tiny_run import invented_data, tiny_run


def test_a_graph_with_its_tables_apart_scores_the_same(tmp_path: Path) -> None:
    request = random_request(MOVIELENS, 20, 1, seed=2)
    ((_, expected),) = run_onnx(exported("fm", MOVIELENS), [request])
    graph = exported("fm", MOVIELENS)
    apart = write_apart(graph, tmp_path, smallest=1000)
    assert apart == tmp_path / WEIGHTS
    moved = [w for w in graph.graph.initializer if w.external_data]
    offsets = [int(e.value) for w in moved for e in w.external_data if e.key == "offset"]
    assert offsets
    assert all(offset % 65536 == 0 for offset in offsets)
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run([SCORES], request)[0], expected)


def test_small_graphs_stay_in_one_file(tmp_path: Path) -> None:
    assert write_apart(exported("lr", MOVIELENS), tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_with_weights_apart_loads_and_an_altered_byte_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(invented_data(tmp_path / "data"), tmp_path / "run", "fm")
    monkeypatch.setattr(weights.write_apart, "__kwdefaults__", {"smallest": 1000})
    bundle = export_run(run, tmp_path / "bundles")
    assert WEIGHTS in bundle.manifest.files
    assert load_current(tmp_path / "bundles", "fm", load_settings()).card.name == "fm"
    assert sorted(p.name for p in (tmp_path / "bundles").iterdir()) == ["fm"]
    content = bytearray((bundle.path / WEIGHTS).read_bytes())
    content[0] ^= 1
    (bundle.path / WEIGHTS).write_bytes(content)
    with pytest.raises(CorruptBundle, match=r"weights\.bin: SHA-256 differs"):
        open_current(tmp_path / "bundles", "fm")


def test_a_model_that_no_graph_holds_is_refused_by_name() -> None:
    with torch.device("meta"):  # takes no memory
        wide, many = nn.Embedding(1 << 28, 8), nn.Embedding(1 << 27, 8)
    with pytest.raises(GraphRefused, match=r"weight has 2,147,483,648 numbers; .*fewer hash buckets"):
        check_size(wide)
    with pytest.raises(GraphRefused, match=r"the weights take 4\.29 GB"):
        check_size(many)
    check_size(many, in_memory=False)
    with pytest.raises(GraphRefused, match="CUDA kernels index a tensor with 32 bits"):
        check_size(wide, in_memory=False)
