"""Large tables beside the graph, in a file that the runtime maps: processes of a machine share its pages.

In the graph itself they would be copied into every process, and a protobuf ends at 2 GB. Each tensor starts
at a multiple of 64 KiB, which every system can map. What a runtime cannot address is refused in plain words:
onnxruntime's lookups on the CPU are right beyond 2^31 numbers, its CUDA kernels were not (its issues 28107
and 28385).
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from onnx import StringStringEntryProto, TensorProto, numpy_helper

from rankd_contract.manifest import WEIGHTS
from rankd_export.errors import GraphRefused

if TYPE_CHECKING:
    import onnx_ir
    from torch import nn

__all__ = ["MOST_BYTES", "SMALLEST", "check_size", "load_back", "loaded", "unload", "write_apart"]

SMALLEST = 1 << 20
"""Bytes from which a tensor is kept apart; what is smaller costs more to look up than to copy."""
MOST_BYTES = (1 << 31) - (64 << 20)
"""Of all weights where they are part of the model in memory: a protobuf holds 2 GB."""
_MOST_ELEMENTS = (1 << 31) - 1
_ALIGNMENT = 64 << 10


def check_size(model: nn.Module, *, in_memory: bool = True) -> None:
    """Raise GraphRefused where a model is larger than a graph can be, naming its largest tensor.

    `in_memory`: its weights are part of one protobuf.
    """
    sizes = {name: tensor.numel() for name, tensor in model.state_dict().items()}
    largest = max(sizes, key=lambda name: sizes[name], default=None)
    if largest is None:
        return
    if sizes[largest] > _MOST_ELEMENTS:
        raise GraphRefused(
            f"{largest} has {sizes[largest]:,} numbers; CUDA kernels index a tensor with 32 bits, so "
            f"{_MOST_ELEMENTS:,} is the most; use fewer hash buckets or a smaller embedding_width"
        )
    total = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    if in_memory:
        _check_total(total, largest)


def unload(model: onnx_ir.Model, folder: Path) -> None:
    """Move a model's large tensors into `folder/weights.bin`, one by one, before it becomes a protobuf."""
    from onnx_ir.external_data import unload_from_model  # noqa: PLC0415  # half a second, which reading needs not

    unload_from_model(model, folder, WEIGHTS, size_threshold_bytes=SMALLEST)
    if not (folder / WEIGHTS).stat().st_size:  # none was large
        (folder / WEIGHTS).unlink()


def load_back(graph: onnx.ModelProto, folder: Path) -> None:
    """Make tensors that lie in `folder` part of the graph again. Raises GraphRefused beyond what it holds."""
    outside = [w for w in graph.graph.initializer if w.data_location == TensorProto.EXTERNAL]
    if not outside:
        return
    _check_total(sum(map(_num_bytes, outside)), max(outside, key=_num_bytes).name)
    onnx.load_external_data_for_model(graph, str(folder))
    (folder / WEIGHTS).unlink()


def loaded(graph: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Return a copy with the tensors that lie in `folder` in it; raises GraphRefused as `load_back` does."""
    made = onnx.ModelProto()
    made.CopyFrom(graph)
    outside = [w for w in made.graph.initializer if w.data_location == TensorProto.EXTERNAL]
    if outside:
        _check_total(sum(map(_num_bytes, outside)), max(outside, key=_num_bytes).name)
        onnx.load_external_data_for_model(made, str(folder))
    return made


def _check_total(total: int, largest: str) -> None:
    if total > MOST_BYTES:
        raise GraphRefused(
            f"the weights take {total / 1e9:.2f} GB, {largest} most of it; a graph in one piece, as "
            f"fewer bits need it, holds {MOST_BYTES / 1e9:.2f} GB; use fewer hash buckets or a smaller "
            "embedding_width"
        )


def write_apart(graph: onnx.ModelProto, folder: Path, *, smallest: int = SMALLEST) -> Path | None:
    """Move a graph's large tensors into `folder/weights.bin`; returns the file, None where none is there.

    Those that lie there already stay. The graph keeps where each lies. It is changed in place, since a copy
    would double what is large.
    """
    path = folder / WEIGHTS
    within = [w for w in graph.graph.initializer if w.data_location != TensorProto.EXTERNAL]
    large = [w for w in within if _num_bytes(w) >= smallest]
    if large:
        with path.open("r+b" if path.exists() else "wb") as file:
            file.seek(0, os.SEEK_END)
            for weight in large:
                file.seek(math.ceil(file.tell() / _ALIGNMENT) * _ALIGNMENT)
                start = file.tell()
                file.write(numpy_helper.to_array(weight).tobytes())
                _point(weight, start, file.tell() - start)
    return path if path.exists() else None


def _num_bytes(weight: TensorProto) -> int:
    return int(math.prod(weight.dims) * onnx.helper.tensor_dtype_to_np_dtype(weight.data_type).itemsize)


def _point(weight: TensorProto, start: int, length: int) -> None:
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
        weight.ClearField(field)
    weight.data_location = TensorProto.EXTERNAL
    del weight.external_data[:]
    for key, value in (("location", WEIGHTS), ("offset", start), ("length", length)):
        weight.external_data.append(StringStringEntryProto(key=key, value=str(value)))
