"""The portable graph -> the graph for CUDA: one user a run, sizes known beforehand, nothing left on the host.

- One user row: a run is one request, or a piece of one; several users' requests are runs of their own.
- Candidates come in a few fixed numbers (`rankd_contract.cuda_graph`), so each size can be captured once as a
  CUDA graph and replayed. The size is not written into the file: one session serves all of them from one
  copy of the weights. That no node depends on it but through its inputs is what is checked here.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import shape_inference

from rankd_export.cuda.kernels import check_kernels
from rankd_export.cuda.operators import CONTRIB, place
from rankd_export.cuda.sizes import without_sizes
from rankd_export.cuda.tables import apart
from rankd_export.errors import GraphRefused

__all__ = ["to_cuda", "with_sizes"]

# Unlike any other size, so that shapes say which axis is the candidates'.
_CANDIDATES = 509
_CONTRIB_VERSION = 1


def to_cuda(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph for CUDA; raises NoCudaKernel where a device would leave some of it to the host."""
    slim, tables = apart(graph)
    made = place(without_sizes(with_sizes(slim, {"R": 1, "N": _CANDIDATES})))
    kept = [v for v in made.graph.input if v.name not in tables]
    del made.graph.input[:], made.graph.value_info[:]
    made.graph.input.extend(kept)
    made.graph.initializer.extend(tables.values())
    _name_candidates(made, graph)
    if not any(o.domain == CONTRIB for o in made.opset_import):
        made.opset_import.append(onnx.helper.make_opsetid(CONTRIB, _CONTRIB_VERSION))
    _check_names(made, graph)
    check_kernels(made)
    return made


def with_sizes(graph: onnx.ModelProto, sizes: Mapping[str, int]) -> onnx.ModelProto:
    """Return a copy in which named sizes are these, and every other is inferred from them."""
    made = onnx.ModelProto()
    made.CopyFrom(graph)
    for value in (*made.graph.input, *made.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    del made.graph.value_info[:]
    return shape_inference.infer_shapes(made, data_prop=True)


def _name_candidates(made: onnx.ModelProto, graph: onnx.ModelProto) -> None:
    for found, wanted in ((made.graph.input, graph.graph.input), (made.graph.output, graph.graph.output)):
        for value, like in zip(found, wanted, strict=True):
            for dim, named in zip(
                value.type.tensor_type.shape.dim, like.type.tensor_type.shape.dim, strict=True
            ):
                if named.dim_param == "N":
                    dim.dim_param = "N"


def _check_names(made: onnx.ModelProto, graph: onnx.ModelProto) -> None:
    for found, wanted in ((made.graph.input, graph.graph.input), (made.graph.output, graph.graph.output)):
        if [v.name for v in found] != [v.name for v in wanted]:
            raise GraphRefused(
                f"the CUDA graph has {[v.name for v in found]}, the portable one {[v.name for v in wanted]}"
            )
