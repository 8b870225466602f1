"""Row F7 and its neighbours: graphs that no export writes, and graphs that hang, crash or fill memory.

Each is published as a bundle in good order (digests, schema, golden requests), and the service that is to
take it up goes on answering with the version before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rankd_contract.bundle import Bundle
from rankd_contract.manifest import WEIGHTS
from rankd_contract.repository import open_current
from rankd_contract.signature import SCORES
from rankd_service.app import build
from rankd_service.errors import BundleRefused
from rankd_service.inference.loader import load_model
from rankd_service.settings import Settings
from rankd_service.settings_sources import load_settings
from tests.support.bundles import OPSET, publish_bundle, publish_files_over
from tests.support.memory_store import MemoryStore
from tests.support.server import running

pytestmark = pytest.mark.fault
Change = Callable[[onnx.ModelProto], None]


def changed(repository: Path, change: Change, **more: bytes) -> Bundle:
    """Publish a sound bundle, then once more with its graph changed."""
    first = publish_bundle(repository)
    model = onnx.load(first.graph)
    change(model)
    named = {name.replace("_", "."): content for name, content in more.items()}
    return publish_files_over(first, repository, {"model.onnx": model.SerializeToString(), **named})


def constant(value: Any, name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


def beside(model: onnx.ModelProto, op: str, inputs: list[str], **attributes: Any) -> None:
    """Add a node whose output replaces nothing but is asked for, so that it is not left out."""
    model.graph.node.append(helper.make_node(op, inputs, ["beside"], **attributes))
    for node in model.graph.node:
        if node.output[0] == SCORES:
            node.output[0] = "before"
    model.graph.initializer.append(constant(np.float32(0), "nothing"))
    model.graph.node.append(helper.make_node("Cast", ["beside"], ["as_float"], to=TensorProto.FLOAT))
    model.graph.node.append(helper.make_node("ReduceMax", ["as_float"], ["one"], keepdims=0))
    model.graph.node.append(helper.make_node("Mul", ["one", "nothing"], ["none"]))
    model.graph.node.append(helper.make_node("Add", ["before", "none"], [SCORES]))


def custom_operator(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Run", [SCORES], ["x"], domain="com.example"))
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def runtimes_own_operator(model: onnx.ModelProto) -> None:
    node = helper.make_node(
        "EPContext", [SCORES], ["x"], domain="com.microsoft", ep_cache_context="/etc/passwd"
    )
    model.graph.node.append(node)


def a_million_nodes(model: onnx.ModelProto) -> None:
    model.graph.node.extend([helper.make_node("Relu", ["a"], ["a"])] * 100_000)


def many_values(model: onnx.ModelProto) -> None:
    value = helper.make_tensor_value_info("v", TensorProto.FLOAT, [])
    model.graph.value_info.extend([value] * 300_000)


def a_function_that_calls_itself(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Again", ["x"], ["y"], domain="mine")]
    opsets = [helper.make_opsetid("mine", 1)]
    model.functions.append(helper.make_function("mine", "Again", ["x"], ["y"], body, opsets))


def a_loop(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], [], body=body))


def a_sparse_tensor(model: onnx.ModelProto) -> None:
    values, places = constant(np.zeros(1, np.float32), "s"), constant(np.zeros(1, np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [1 << 40]))


def _tensor(model: onnx.ModelProto, dims: list[int], **place: str) -> None:
    tensor = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=dims)
    if place:
        tensor.data_location = TensorProto.EXTERNAL
    for key, value in place.items():
        tensor.external_data.add(key=key, value=value)
    model.graph.initializer.append(tensor)


def declared(dims: list[int], **place: str) -> Change:
    return lambda model: _tensor(model, dims, **place)


def raw_that_is_less(model: onnx.ModelProto) -> None:
    _tensor(model, [10**9])
    model.graph.initializer[-1].raw_data = b"1234"


def outside_in_an_attribute(model: onnx.ModelProto) -> None:
    tensor = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    model.graph.node.append(helper.make_node("Constant", [], ["x"], value=tensor))


def another_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = OPSET + 1


FOUND: dict[str, tuple[Change, str]] = {
    "custom operator": (custom_operator, "domain 'com.example'; only ONNX' own and fused ones"),
    "an operator of the runtime that reads a file": (
        runtimes_own_operator,
        "operator 'EPContext' of com.microsoft",
    ),
    "a million nodes": (a_million_nodes, "more than 10,000 nodes"),
    "many declared values": (many_values, "more than 200,000 parts"),
    "a recursive function": (a_function_that_calls_itself, "holds functions of its own"),
    "a loop": (a_loop, "branches or loops"),
    "a sparse tensor": (a_sparse_tensor, "holds a sparse tensor"),
    "another opset": (another_opset, f"of opset {OPSET + 1}, the manifest says {OPSET}"),
    "a petabyte beside": (
        declared([1 << 30, 1], location=WEIGHTS, offset="0", length=str(1 << 50)),
        "takes 4,294,967,296 bytes; it is said to lie in weights.bin (64 bytes)",
    ),
    "beyond the file": (
        declared([16], location=WEIGHTS, offset="64", length="64"),
        "it is said to lie in weights.bin (64 bytes) from 64 on, with 64",
    ),
    "before the file": (declared([16], location=WEIGHTS, offset="-4", length="64"), "from -4 on"),
    "a length in words": (declared([16], location=WEIGHTS, length="all"), "are no numbers"),
    "another folder": (
        declared([1], location="../1/model.onnx"),
        "lies in '../1/model.onnx'; files of weights",
    ),
    "an absolute path": (declared([1], location="/etc/passwd"), "lies in '/etc/passwd'"),
    "outside in an attribute": (outside_in_an_attribute, "lies in '/etc/passwd'"),
    "numbers beyond 32 bits": (declared([1 << 20, 1 << 12]), "declared with 4,294,967,296 numbers"),
    "a negative size": (declared([-1, 4]), "is none that exports have"),
    "less than declared": (raw_that_is_less, "declared with 4,000,000,000 bytes and has 4"),
}


HERE = load_settings(models={"trial_s": 0})
TRIED = load_settings()
BOTH = ("custom operator", "a million nodes", "another folder")  # the check is the same


@pytest.mark.fault("F6", "F7")
@pytest.mark.parametrize(
    ("what", "settings"),
    [*((w, HERE) for w in FOUND), *((w, TRIED) for w in BOTH)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_export_writes_is_refused_by_name(what: str, tmp_path: Path, settings: Settings) -> None:
    change, said = FOUND[what]
    bundle = changed(tmp_path, change, weights_bin=bytes(64))
    began_s = time.monotonic()
    with pytest.raises(BundleRefused) as refused:
        load_model(bundle, settings)
    assert time.monotonic() - began_s < 30
    assert str(refused.value).startswith("films version 2: ")
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.fault("F7")
@pytest.mark.parametrize("content", [b"", b"\x0f", b"\x3a\xff\xff\xff\xff\x7f", b"nonsense" * 9, b"\x08\x08"])
@pytest.mark.parametrize("settings", [HERE, TRIED], ids=["here", "tried out"])
def test_a_file_that_is_no_graph_is_refused(content: bytes, tmp_path: Path, settings: Settings) -> None:
    bundle = publish_files_over(publish_bundle(tmp_path), tmp_path, {"model.onnx": content})
    with pytest.raises(BundleRefused, match=r"the graph is (empty|no ONNX graph)"):
        load_model(bundle, settings)


def memory_at_loading(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(constant(np.array([3 << 30], np.int64), "size"))
    beside(model, "ConstantOfShape", ["size"])


def memory_at_running(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(constant(np.array([3 << 30], np.int64), "sizes"))
    model.graph.initializer.append(constant(np.array([0], np.int64), "zero"))
    model.graph.initializer.append(constant(np.array([1], np.int64), "unit"))
    model.graph.node.append(helper.make_node("Slice", ["in_row", "zero", "unit"], ["some"]))
    model.graph.node.append(helper.make_node("Add", ["some", "sizes"], ["grown"]))
    beside(model, "ConstantOfShape", ["grown"])


def a_long_computation(model: onnx.ModelProto) -> None:
    """Minutes of products, whose inputs depend on the request, so that it is the run that takes long."""
    model.graph.initializer.append(constant(np.array([3000, 3000], np.int64), "square"))
    model.graph.initializer.append(constant(np.array([0], np.int64), "zero"))
    model.graph.initializer.append(constant(np.array([1], np.int64), "unit"))
    model.graph.node.append(helper.make_node("Slice", ["in_row", "zero", "unit"], ["some"]))
    model.graph.node.append(helper.make_node("Cast", ["some"], ["seed"], to=TensorProto.FLOAT))
    model.graph.node.append(helper.make_node("Expand", ["seed", "square"], ["m0"]))
    for n in range(400):
        model.graph.node.append(helper.make_node("MatMul", [f"m{n}", f"m{n}"], [f"m{n + 1}"]))
    beside(model, "Identity", ["m400"])


ALONE: dict[str, tuple[Change, str]] = {
    "memory when it is loaded": (memory_at_loading, "models.trial_mb"),
    "memory when it is run": (memory_at_running, "models.trial_mb"),
    "time when it is run": (a_long_computation, "it was tried out for 2 s (models.trial_s)"),
}


@pytest.mark.fault("F7")
@pytest.mark.parametrize("what", list(ALONE))
def test_what_hangs_or_fills_memory_does_so_alone(what: str, tmp_path: Path) -> None:
    change, said = ALONE[what]
    settings = load_settings(
        models={"repository": tmp_path, "refresh_s": 0.02, "trial_s": 2, "trial_mb": 512}
    )
    publish_bundle(tmp_path)
    with running(build(settings, MemoryStore())) as address, httpx.Client(base_url=address) as client:
        bundle = changed(tmp_path / "elsewhere", change)
        kept = {name: bundle.path / name for name in bundle.manifest.files}
        publish_files_over(
            open_current(tmp_path, "films"), tmp_path, {k: p.read_bytes() for k, p in kept.items()}
        )
        began_s, refused = time.monotonic(), 'rankd_bundle_loads_total{outcome="refused"} 1.0'
        while refused not in client.get("/metrics").text:
            assert time.monotonic() - began_s < 60
            answer = client.post("/v1/rank/films", json={"user": "1", "item_ids": ["1", "2"]})
            assert answer.json()["version"] == 1
    with pytest.raises(BundleRefused, match="films version 2: ") as error:
        load_model(open_current(tmp_path, "films"), settings)
    assert said in str(error.value)


def test_fused_operators_of_the_runtime_are_no_code_of_others(tmp_path: Path) -> None:
    def fused(model: onnx.ModelProto) -> None:
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        for node in model.graph.node:
            if node.output[0] == SCORES:
                node.op_type, node.domain = "FusedMatMul", "com.microsoft"
                node.input.append("unit")
        model.graph.initializer.append(constant(np.eye(2, dtype=np.float32), "unit"))

    assert load_model(changed(tmp_path, fused), TRIED).card.version == 2


def trials() -> list[str]:
    """Processes in which this one tries bundles out."""
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    found = []
    for path in children:
        with suppress(OSError):  # a thread or a process that has ended meanwhile
            found += [p for p in path.read_text().split() if b"rankd-trial" in command_of(p)]
    return found


def command_of(pid: str) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.fault("F7")
def test_who_ends_does_not_wait_for_a_trial(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings(models={"repository": tmp_path, "refresh_s": 0.02, "trial_s": 600})
    with running(build(settings, MemoryStore())):
        changed(tmp_path, a_long_computation)
        began_s = time.monotonic()
        while not trials():
            assert time.monotonic() - began_s < 30
        ended_s = time.monotonic()
    assert time.monotonic() - ended_s < 30
    assert not trials()
    assert "since the service ends" not in caplog.text  # nobody is told of a bundle that was not looked at
