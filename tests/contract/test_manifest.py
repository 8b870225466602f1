from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankd_contract.cuda_graph import CudaGraph
from rankd_contract.errors import CorruptBundle, UnsupportedFormat
from rankd_contract.manifest import BundleManifest, FileEntry
from rankd_contract.signature import TensorSpec

MANIFEST = BundleManifest(
    model="films",
    version=3,
    architecture="mlcc",
    created_at="2026-11-22T10:00:00Z",
    schema_fingerprint="00ff00ff00ff00ff",
    tasks=("click", "buy"),
    fusion={"click": 1.0, "buy": 2.0},
    inputs=(TensorSpec("in_user_ids", "int32", ("R", 3)), TensorSpec("in_row", "int64", ("N",))),
    outputs=(TensorSpec("out_scores", "float32", ("N", 2)),),
    opset=17,
    golden_tolerance=1e-5,
    calibration={"buy": {"kind": "platt", "scale": 0.5, "shift": -0.5}},
    parity={"cpu": 1e-6},
    metrics={"auc": 0.79},
    record={"seed": 7},
    files={"model.onnx": FileEntry(12, "ab" * 32)},
)


def tree() -> dict[str, Any]:
    return dict(json.loads(MANIFEST.to_json()))


def test_a_manifest_comes_back_as_it_was() -> None:
    assert BundleManifest.from_json(MANIFEST.to_json()) == MANIFEST


def test_a_bundle_from_before_calibration_is_still_read() -> None:
    old = {**tree(), "format": "rankd-bundle/1"}
    del old["calibration"]
    assert BundleManifest.from_json(json.dumps(old).encode()) == replace(MANIFEST, calibration={})


def test_a_bundle_that_does_not_say_how_its_graph_was_made_is_still_read() -> None:
    old = {**tree(), "format": "rankd-bundle/2"}
    del old["export"]
    assert BundleManifest.from_json(json.dumps(old).encode()) == replace(MANIFEST, export={})


def test_a_bundle_from_before_graphs_for_cuda_is_still_read() -> None:
    old = {**tree(), "format": "rankd-bundle/3"}
    del old["cuda"]
    assert BundleManifest.from_json(json.dumps(old).encode()) == MANIFEST


def test_what_a_cuda_graph_is_run_with_comes_back_as_it_was() -> None:
    with_one = replace(MANIFEST, cuda=CudaGraph("fp16", (64, 512), 5e-3, "1.31.1", {"FusedMatMul": 2}))
    assert BundleManifest.from_json(with_one.to_json()) == with_one


@pytest.mark.parametrize(
    "altered",
    [
        {"buckets": []},
        {"buckets": [64, 64]},
        {"buckets": [512, 64]},
        {"buckets": [0, 64]},
        {"buckets": [True, 64]},
        {"buckets": [64.0]},
        {"buckets": list(range(1, 18))},
        {"buckets": [1 << 40]},
        {"golden_tolerance": "1"},
        {"golden_tolerance": -1},
        {"golden_tolerance": True},
        {"precision": 16},
        {"operators": []},
        {"more": 1},
    ],
)
def test_a_cuda_graph_that_cannot_be_run_is_corrupt(altered: dict[str, Any]) -> None:
    cuda = {"precision": "fp32", "buckets": [64], "golden_tolerance": 1e-5, "onnxruntime": "1.31.1"}
    BundleManifest.from_json(json.dumps({**tree(), "cuda": cuda}).encode())
    with pytest.raises(CorruptBundle, match="incomplete or altered"):
        BundleManifest.from_json(json.dumps({**tree(), "cuda": {**cuda, **altered}}).encode())


@pytest.mark.parametrize("curve", [{"kind": "platt", "scale": -1, "shift": 0}, {"kind": "x"}, 3, None])
def test_a_calibration_that_is_no_curve_is_refused(curve: object) -> None:
    with pytest.raises(CorruptBundle):
        BundleManifest.from_json(json.dumps({**tree(), "calibration": {"click": curve}}).encode())


def test_the_same_manifest_is_always_the_same_bytes() -> None:
    again = BundleManifest.from_json(json.dumps(dict(reversed(tree().items()))).encode())
    assert again.to_json() == MANIFEST.to_json()


def test_reports_may_be_left_out() -> None:
    short = {k: v for k, v in tree().items() if k not in {"parity", "metrics", "record", "export"}}
    assert BundleManifest.from_json(json.dumps(short).encode()).metrics == {}


@pytest.mark.parametrize("found", [None, "rankd-bundle/5", 2, "rankd-bundle/4 "])
def test_another_format_is_named_beside_the_one_we_read(found: object) -> None:
    other = {**tree(), "format": found}
    with pytest.raises(
        UnsupportedFormat, match=r"format is .*, this version reads .*rankd-bundle/4; export again"
    ):
        BundleManifest.from_json(json.dumps(other).encode())


@pytest.mark.parametrize("text", [b"[]", b"3", b"null", b'"x"', b"{}"])
def test_json_that_is_no_manifest_is_an_unsupported_format(text: bytes) -> None:
    with pytest.raises(UnsupportedFormat):
        BundleManifest.from_json(text)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": ' * 100_000])
def test_bytes_that_are_no_json_are_a_corrupt_bundle(text: bytes) -> None:
    with pytest.raises(CorruptBundle, match="not valid JSON"):
        BundleManifest.from_json(text)


OPTIONAL = {"format", "calibration", "cuda", "parity", "metrics", "record", "export"}


@pytest.mark.parametrize("key", [k for k in tree() if k not in OPTIONAL])
def test_a_manifest_without_one_of_its_parts_is_corrupt(key: str) -> None:
    short = {k: v for k, v in tree().items() if k != key}
    with pytest.raises(CorruptBundle, match="incomplete or altered"):
        BundleManifest.from_json(json.dumps(short).encode())


WRONG: dict[str, object] = {
    "model": 3,
    "version": "3",
    "schema_fingerprint": 7,
    "tasks": "click",
    "fusion": [["click", 1]],
    "inputs": {"name": "x"},
    "outputs": [{"name": "x", "dtype": "int32"}],
    "opset": 17.5,
    "golden_tolerance": "small",
    "metrics": [],
    "files": {"model.onnx": {"bytes": "12", "sha256": "00"}},
    "unknown": 1,
}


@pytest.mark.parametrize("key", list(WRONG))
def test_a_part_of_the_wrong_type_is_corrupt(key: str) -> None:
    with pytest.raises(CorruptBundle, match="incomplete or altered"):
        BundleManifest.from_json(json.dumps({**tree(), key: WRONG[key]}).encode())


@given(st.binary(max_size=60))
def test_arbitrary_bytes_never_raise_anything_else(text: bytes) -> None:
    with pytest.raises(CorruptBundle):
        BundleManifest.from_json(text)


@given(st.sampled_from(sorted(tree())), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
))  # fmt: skip
def test_any_value_of_a_part_is_read_or_refused(key: str, value: object) -> None:
    try:
        manifest = BundleManifest.from_json(json.dumps({**tree(), key: value}).encode())
    except CorruptBundle:
        return
    assert isinstance(manifest.version, int)
    assert all(isinstance(name, str) for name in manifest.tasks)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400, "NaN", "Infinity", "9" * 5000])
@pytest.mark.parametrize("key", ["golden_tolerance", "fusion"])
def test_a_number_that_no_float_holds_is_corrupt(key: str, number: str) -> None:
    text = json.dumps({**tree(), key: {"click": "@"} if key == "fusion" else "@"}).replace('"@"', number)
    with pytest.raises(CorruptBundle):
        BundleManifest.from_json(text.encode())


@pytest.mark.parametrize("key", ["model", "architecture", "created_at", "tasks"])
def test_text_that_no_answer_could_hold_is_corrupt(key: str) -> None:
    with pytest.raises(CorruptBundle, match="incomplete or altered"):
        BundleManifest.from_json(
            json.dumps({**tree(), key: ["\ud800"] if key == "tasks" else "\ud800"}).encode()
        )
