from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import FIELD_WEIGHTS, ROW, SCORES, TensorSpec, inputs, outputs
from rankd_service.errors import BundleRefused
from rankd_service.inference.loader import load_current
from rankd_service.inference.session import cuda_absence
from rankd_service.settings import Settings
from rankd_service.settings_sources import load_settings
from tests.support.bundles import SCHEMA_TEXT, batch_of, echo, every_input, price, publish_bundle


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(models={"repository": tmp_path})


def refusal(tmp_path: Path, settings: Settings) -> str:
    with pytest.raises(BundleRefused) as refused:
        load_current(tmp_path, "films", settings)
    return str(refused.value)


def test_a_sound_bundle_is_loaded_and_scores_as_recorded(tmp_path: Path, settings: Settings) -> None:
    bundle = publish_bundle(tmp_path, graph=every_input)
    model = load_current(tmp_path, "films", settings)
    assert (model.card.name, model.card.version, model.card.digest) == ("films", 1, bundle.digest)
    assert model.card.provider == "CPUExecutionProvider"
    assert model.fusion_T.tolist() == [0.25, 0.75]
    with np.load(bundle.golden, allow_pickle=False) as golden:
        tensors = {s.name: golden[f"r1/{s.name}"] for s in inputs(bundle.schema)}
        assert np.array_equal(model.score(batch_of(tensors), 10_000), golden[f"r1/{SCORES}"])


def test_scores_are_calibrated_after_the_graph_and_the_replay_is_of_the_graph_itself(
    tmp_path: Path, settings: Settings
) -> None:
    curves = {"loved": {"kind": "platt", "scale": 0.5, "shift": -2.0}}
    bundle = publish_bundle(tmp_path, graph=every_input, calibration=curves)
    model = load_current(tmp_path, "films", settings)
    with np.load(bundle.golden, allow_pickle=False) as golden:
        tensors = {s.name: golden[f"r1/{s.name}"] for s in inputs(bundle.schema)}
        raw_NT = golden[f"r1/{SCORES}"]
        every_NT = np.concatenate([golden[name] for name in golden.files if name.endswith(SCORES)])
    found_NT = model.score(batch_of(tensors), len(raw_NT))
    np.testing.assert_allclose(model.prior_T, model.calibration(every_NT).mean(0), rtol=1e-5)
    assert np.array_equal(found_NT[:, 0], raw_NT[:, 0])
    logit_N = np.log(raw_NT[:, 1]) - np.log1p(-raw_NT[:, 1])
    np.testing.assert_allclose(found_NT[:, 1], 1 / (1 + np.exp(2 - 0.5 * logit_N)), rtol=1e-5)


def test_fusion_weights_may_be_overridden_by_the_operator(tmp_path: Path) -> None:
    publish_bundle(tmp_path)
    settings = load_settings(models={"repository": tmp_path, "fusion": {"films": {"loved": 0}}})
    model = load_current(tmp_path, "films", settings)
    assert model.fusion_T.tolist() == [1.0, 0.0]
    assert model.card.fusion == {"liked": 1, "loved": 0.0}


@pytest.mark.parametrize(
    ("fusion", "said"),
    [
        ({"likd": 1}, "weighs likd, the tasks are liked, loved"),
        ({"liked": -1}, "none below 0"),
        ({"liked": 0, "loved": 0}, "one above"),
        ({"liked": 1e308, "loved": 1e308}, "fusion weights"),
    ],
    ids=["unknown-task", "negative", "all-zero", "sum-overflows"],
)
def test_fusion_weights_that_make_no_score_are_refused(
    tmp_path: Path, fusion: dict[str, float], said: str
) -> None:
    publish_bundle(tmp_path)
    settings = load_settings(models={"repository": tmp_path, "fusion": {"films": fusion}})
    assert said in refusal(tmp_path, settings)


def test_f1_any_changed_byte_of_the_graph_is_refused(tmp_path: Path, settings: Settings) -> None:
    bundle = publish_bundle(tmp_path)
    blob = bytearray(bundle.graph.read_bytes())
    blob[len(blob) // 2] ^= 1
    bundle.graph.write_bytes(blob)
    assert "SHA-256 differs" in refusal(tmp_path, settings)


def test_f4_scores_that_differ_from_the_recorded_ones_name_request_difference_and_tolerance(
    tmp_path: Path, settings: Settings
) -> None:
    with np.load(publish_bundle(tmp_path / "sound").golden, allow_pickle=False) as arrays:
        golden = dict(arrays)
    golden[f"r1/{SCORES}"] = golden[f"r1/{SCORES}"] + np.float32(0.25)
    publish_bundle(tmp_path, golden=golden)
    message = refusal(tmp_path, settings)
    assert "golden request r1" in message
    assert "differ from the recorded ones by 0.25" in message
    assert "allowed is " in message


@pytest.mark.parametrize(("off", "sound"), [(2e-6, True), (2e-4, False), (2e-3, False)])
def test_f4_a_score_of_a_rare_event_may_be_off_by_its_own_measure_alone(
    tmp_path: Path, settings: Settings, off: float, sound: bool
) -> None:
    """Of a model that says 0.001 of everything, one that says 0.003 is within 0.005."""
    with np.load(publish_bundle(tmp_path / "sound", graph=price).golden, allow_pickle=False) as arrays:
        golden = {name: array.copy() for name, array in arrays.items()}
    for request in {name.partition("/")[0] for name in golden}:
        golden[f"{request}/in_item_values"][:] = 0.001
        golden[f"{request}/{SCORES}"][:] = 0.001 + off
    publish_bundle(tmp_path, graph=price, golden=golden, golden_tolerance=5e-3)
    if sound:
        load_current(tmp_path, "films", settings)
    else:
        assert f"differ from the recorded ones by {off:.3g}"[:45] in refusal(tmp_path, settings)


def broken(golden: dict[str, np.ndarray[Any, Any]], how: str) -> dict[str, np.ndarray[Any, Any]]:
    if how == "nan":
        golden[f"r0/{SCORES}"] = np.full_like(golden[f"r0/{SCORES}"], np.nan)
    elif how == "shape":
        golden[f"r0/{SCORES}"] = golden[f"r0/{SCORES}"][:, :1]
    elif how == "absent":
        del golden["r0/in_item_ids"]
    elif how == "type":
        golden["r0/in_item_ids"] = golden["r0/in_item_ids"].astype(np.int64)
    elif how == "pickled":
        golden = {"r0/x": np.array([{}], object)}
    elif how == "empty":
        golden = {}
    return golden


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("nan", "differ from the recorded ones by nan"),
        ("shape", "scores are (3, 2), recorded were (3, 1)"),
        ("absent", "lacks in_item_ids"),
        ("type", "golden request r0 cannot be run"),
    ],
)
def test_f15_golden_requests_that_prove_nothing_are_refused(
    tmp_path: Path, settings: Settings, how: str, said: str
) -> None:
    with np.load(publish_bundle(tmp_path / "sound").golden, allow_pickle=False) as arrays:
        golden = broken(dict(arrays), how)
    publish_bundle(tmp_path, golden=golden)
    assert said in refusal(tmp_path, settings)


def one_output_less(schema: FeatureSchema) -> onnx.GraphProto:
    graph = echo(schema)
    del graph.output[0]
    return graph


def wider_input(schema: FeatureSchema) -> onnx.GraphProto:
    graph = echo(schema)
    wide = next(i for i in graph.input if i.name == "in_item_ids")
    wide.type.tensor_type.shape.dim[1].dim_value += 1
    return graph


def fixed_batch(schema: FeatureSchema) -> onnx.GraphProto:
    graph = echo(schema)
    rows = next(i for i in graph.input if i.name == "in_item_ids")
    rows.type.tensor_type.shape.dim[0].dim_value = 3
    return graph


def other_type(schema: FeatureSchema) -> onnx.GraphProto:
    graph = echo(schema)
    ids = next(i for i in graph.input if i.name == "in_item_ids")
    ids.type.tensor_type.elem_type = onnx.TensorProto.INT64
    return graph


@pytest.mark.parametrize("graph", [one_output_less, wider_input, fixed_batch, other_type])
def test_f15_a_graph_with_another_signature_than_its_schema_is_refused(
    tmp_path: Path, settings: Settings, graph: Any
) -> None:
    with np.load(publish_bundle(tmp_path / "sound").golden, allow_pickle=False) as arrays:
        golden = dict(arrays)
    publish_bundle(tmp_path, graph=graph, golden=golden)
    assert "of the graph are" in refusal(tmp_path, settings)


def test_f15_a_manifest_with_another_signature_than_its_schema_is_refused(
    tmp_path: Path, settings: Settings
) -> None:
    schema = publish_bundle(tmp_path).schema
    publish_bundle(tmp_path, inputs=(*inputs(schema), TensorSpec("in_more", "float32", ("N", 1))))
    assert "inputs in the manifest are" in refusal(tmp_path, settings)
    publish_bundle(tmp_path, outputs=outputs(schema)[:1])
    assert "outputs in the manifest are" in refusal(tmp_path, settings)
    publish_bundle(tmp_path, tasks=("liked",))
    assert "the manifest's tasks are not the schema's" in refusal(tmp_path, settings)


def test_a_bundle_may_explain_its_scores_if_its_graph_does(tmp_path: Path, settings: Settings) -> None:
    def explaining(schema: FeatureSchema) -> onnx.GraphProto:
        graph = echo(schema)
        graph.initializer.append(numpy_helper.from_array(np.array([1, 2]), "axes"))
        graph.initializer.append(numpy_helper.from_array(np.array([1, 3, 8]), "shape"))
        graph.node.append(helper.make_node("Unsqueeze", [ROW, "axes"], ["narrow"]))
        graph.node.append(helper.make_node("Expand", ["narrow", "shape"], ["wide"]))
        graph.node.append(helper.make_node("Cast", ["wide"], [FIELD_WEIGHTS], to=TensorProto.FLOAT))
        graph.output.append(helper.make_tensor_value_info(FIELD_WEIGHTS, TensorProto.FLOAT, ["N", 3, 8]))
        return graph

    schema = publish_bundle(tmp_path).schema
    explanation = TensorSpec(FIELD_WEIGHTS, "float32", ("N", 3, 8))
    publish_bundle(tmp_path, outputs=(*outputs(schema), explanation))
    assert "outputs of the graph are" in refusal(tmp_path, settings)
    publish_bundle(tmp_path, graph=explaining)
    assert "outputs of the graph are" in refusal(tmp_path, settings)
    publish_bundle(tmp_path, graph=explaining, outputs=(*outputs(schema), explanation))
    assert load_current(tmp_path, "films", settings).card.version == 4


def test_a_graph_the_runtime_cannot_load_is_refused(tmp_path: Path, settings: Settings) -> None:
    def unknown_operator(schema: FeatureSchema) -> onnx.GraphProto:
        graph = echo(schema)
        graph.node.append(helper.make_node("Nonsense", [SCORES], ["x"]))
        return graph

    with np.load(publish_bundle(tmp_path / "sound").golden, allow_pickle=False) as arrays:
        golden = dict(arrays)
    publish_bundle(tmp_path, graph=unknown_operator, golden=golden, in_two=False)
    assert "onnxruntime cannot load it" in refusal(tmp_path, settings)


def test_a_model_without_a_pointer_is_refused_in_words(tmp_path: Path, settings: Settings) -> None:
    assert "no usable pointer" in refusal(tmp_path, settings)


def test_f8_required_cuda_that_is_not_there_is_refused_and_preferred_cuda_says_what_it_got(
    tmp_path: Path,
) -> None:
    if cuda_absence() is None:
        pytest.skip("this machine has CUDA")
    publish_bundle(tmp_path, schema_text=SCHEMA_TEXT)
    required = load_settings(models={"repository": tmp_path}, inference={"provider": "require_cuda"})
    assert "require_cuda" in refusal(tmp_path, required)
    preferred = load_settings(models={"repository": tmp_path}, inference={"provider": "prefer_cuda"})
    assert load_current(tmp_path, "films", preferred).card.provider == "CPUExecutionProvider"


def test_an_empty_golden_request_is_refused_before_it_can_end_the_process(
    tmp_path: Path, settings: Settings
) -> None:
    bundle = publish_bundle(tmp_path)
    with np.load(bundle.golden, allow_pickle=False) as arrays:
        empty = {name: array[:0] for name, array in arrays.items()}
    publish_bundle(tmp_path, golden=empty)
    assert "holds an empty input" in refusal(tmp_path, settings)


@pytest.mark.parametrize("tolerance", [10.0, -1.0])
def test_a_tolerance_that_proves_nothing_is_refused(
    tmp_path: Path, settings: Settings, tolerance: float
) -> None:
    publish_bundle(tmp_path, golden_tolerance=tolerance)
    assert "golden_tolerance" in refusal(tmp_path, settings)
