"""Torch module -> ONNX graph with the user's side and the candidates' side as separate inputs.

Names, types and order of inputs and outputs come from the contract's signature. User rows R and
candidate rows N stay dynamic; the model computes the user's side once per user row and broadcasts it by
`in_row`, so nothing is tiled in the feed.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from rankd_contract.calibration import Calibration
from rankd_contract.manifest import GRAPH
from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import TensorSpec, calibrated, field_weights, inputs, outputs
from rankd_export.calibrated import CalibratedScores
from rankd_export.errors import GraphRefused
from rankd_export.fold import serving_form
from rankd_export.probability import probability
from rankd_export.weights import check_size, unload
from rankd_training.models.explaining import Explaining

__all__ = ["OPSET", "check", "results_of", "to_onnx"]

OPSET = 20
_MAX_ROWS = 1 << 20


class _Serving(nn.Module):
    """The model as it is served: logits, probabilities, and what else was asked for."""

    def __init__(self, model: nn.Module, *, explain: bool, calibration: Calibration | None) -> None:
        super().__init__()
        self.model, self.explain = model, explain
        self.calibrated = None if calibration is None else CalibratedScores(calibration)

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, ...]:
        further: list[Tensor] = []
        if self.explain:
            logits, weights = self.model.explained(features)  # type: ignore[operator]  # an Explaining's
            further.append(weights)
        else:
            logits = self.model(features)
        scores = probability(logits)
        if self.calibrated is not None:
            further.append(self.calibrated(scores))
        return logits, scores, *further


def to_onnx(
    model: nn.Module,
    schema: FeatureSchema,
    example: Mapping[str, Tensor],
    *,
    explain: bool = False,
    calibration: Calibration | None = None,
    fold: bool = True,
    apart: Path | None = None,
) -> onnx.ModelProto:
    """Export a model in evaluation mode -> a checked ONNX model (opset 20).

    Args:
        model: maps the signature's inputs (as a dict) to logits [N, T].
        schema: gives the names, types and widths of the inputs.
        example: one batch by input name; R and N above 1 and unlike each other, so that no size is baked in.
        explain: add the output `out_field_weights`, what each score was made of.
        calibration: add the output `out_calibrated`, the scores through these curves.
        fold: trace the model's serving form, where it has one.
        apart: a folder to keep large tensors in, in `weights.bin`, which are then never part of the model
            that is returned: the way for weights beyond the 2 GB of a protobuf.

    Raises:
        GraphRefused: the graph's inputs, outputs or names break a rule of serving, it cannot explain, or the
            model is larger than a graph can be.
    """
    check_size(model, in_memory=apart is None)
    specs = inputs(schema)
    results = results_of(model, schema, example, explain=explain, calibrate=calibration is not None)
    rows = {"R": Dim("R", min=1, max=_MAX_ROWS), "N": Dim("N", min=1, max=_MAX_ROWS)}
    shapes = {s.name: {0: rows[str(s.dims[0])]} for s in specs}
    features = {s.name: example[s.name] for s in specs}
    traced = _Serving(serving_form(model) if fold else model, explain=explain, calibration=calibration)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            traced.eval(),
            (),
            kwargs={"features": features},
            dynamo=True,
            opset_version=OPSET,
            input_names=[s.name for s in specs],
            output_names=[s.name for s in results],
            dynamic_shapes={"features": shapes},
            optimize=True,
            verbose=False,
        )
    assert program is not None
    if apart is not None:
        unload(program.model, apart)
    proto: onnx.ModelProto = program.model_proto
    del proto.metadata_props[:]
    _strip_traces(proto)
    check(proto, schema, results, apart)
    return proto


def results_of(
    model: nn.Module,
    schema: FeatureSchema,
    example: Mapping[str, Tensor],
    *,
    explain: bool,
    calibrate: bool = False,
) -> tuple[TensorSpec, ...]:
    """Outputs of the model's graph; raises GraphRefused where it is to explain and cannot."""
    last = (calibrated(schema),) if calibrate else ()
    if not explain:
        return (*outputs(schema), *last)
    if not isinstance(model, Explaining):
        raise GraphRefused(
            f"{type(model).__name__} cannot say what a score was made of; leave the explanation out"
        )
    with torch.no_grad():
        _, weight_NSO = model.explained(example)
    return (*outputs(schema), field_weights(schema, weight_NSO.shape[2]), *last)


def check(
    proto: onnx.ModelProto,
    schema: FeatureSchema,
    results: Sequence[TensorSpec] | None = None,
    apart: Path | None = None,
) -> None:
    """Raise GraphRefused where the graph breaks a rule of serving.

    `results` are by default the schema's; `apart` is the folder of its large tensors, if they have one.
    """
    if apart is None:
        onnx.checker.check_model(proto, full_check=True)
    else:  # tensors beside a model are found from where the model lies
        (apart / GRAPH).write_bytes(proto.SerializeToString(deterministic=True))
        onnx.checker.check_model(apart / GRAPH, full_check=True)
    results = outputs(schema) if results is None else results
    for found, expected in ((proto.graph.input, inputs(schema)), (proto.graph.output, results)):
        if [v.name for v in found] != [s.name for s in expected]:
            raise GraphRefused(
                f"graph has {[v.name for v in found]}, the schema says {[s.name for s in expected]}"
            )
        for value, spec in zip(found, expected, strict=True):
            dims = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            if isinstance(dims[0], int) or dims[1:] != list(spec.dims[1:]):
                raise GraphRefused(
                    f"{value.name}: shape {dims}, expected {list(spec.dims)} with rows dynamic"
                )
    # An input that shares its name with a weight would silently overwrite the weight at run time.
    shared = {v.name for v in proto.graph.input} & {w.name for w in proto.graph.initializer}
    if shared:
        raise GraphRefused(f"inputs share their name with weights: {sorted(shared)}; rename the parameters")


def _strip_traces(proto: onnx.ModelProto) -> None:
    # The exporter writes a Python stack trace, with paths of the machine, into every node.
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        del value.metadata_props[:]
    del proto.graph.metadata_props[:]


@contextmanager
def _quiet() -> Iterator[None]:
    # The exporter warns about packages it could also have used; none of it is about this model.
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)
