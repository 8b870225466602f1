"""Large tables beside the graph, in a file that the runtime maps: processes of a machine share its pages.

In the graph itself they would be copied into every process, and a protobuf ends at 2 GB. Each tensor starts
at a multiple of 64 KiB, which every system can map. What a runtime cannot address is refused in plain words.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from onnx import StringStringEntryProto, TensorProto, numpy_helper

from rankd_contract.manifest import WEIGHTS
from rankd_export.errors import GraphRefused

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MOST_BYTES", "SMALLEST", "check_size", "write_apart"]

SMALLEST = 1 << 20
"""Bytes from which a tensor is kept apart; what is smaller costs more to look up than to copy."""
MOST_BYTES = (1 << 31) - (64 << 20)
"""Of all weights: a protobuf holds 2 GB, and the exporter makes one before tables can be taken out of it."""
_MOST_ELEMENTS = (1 << 31) - 1
_ALIGNMENT = 64 << 10


def check_size(model: nn.Module) -> None:
    """Raise GraphRefused where a model is larger than a graph can be, naming its largest tensor."""
    sizes = {name: tensor.numel() for name, tensor in model.state_dict().items()}
    largest = max(sizes, key=lambda name: sizes[name], default=None)
    if largest is None:
        return
    if sizes[largest] > _MOST_ELEMENTS:
        raise GraphRefused(
            f"{largest} has {sizes[largest]:,} numbers; runtimes index a tensor with 32 bits, so "
            f"{_MOST_ELEMENTS:,} is the most; use fewer hash buckets or a smaller embedding_width"
        )
    total = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    if total > MOST_BYTES:
        raise GraphRefused(
            f"the weights take {total / 1e9:.2f} GB, {largest} most of it; a graph holds "
            f"{MOST_BYTES / 1e9:.2f} GB; use fewer hash buckets or a smaller embedding_width"
        )


def write_apart(graph: onnx.ModelProto, folder: Path, *, smallest: int = SMALLEST) -> Path | None:
    """Move a graph's large tensors into `folder/weights.bin`; returns the file, None where none is large.

    The graph keeps where each lies. It is changed in place, since a copy would double what is large.
    """
    large = [w for w in graph.graph.initializer if _num_bytes(w) >= smallest]
    if not large:
        return None
    path = folder / WEIGHTS
    with path.open("wb") as file:
        for weight in large:
            file.seek(math.ceil(file.tell() / _ALIGNMENT) * _ALIGNMENT)
            start = file.tell()
            file.write(numpy_helper.to_array(weight).tobytes())
            _point(weight, start, file.tell() - start)
    return path


def _num_bytes(weight: TensorProto) -> int:
    return int(math.prod(weight.dims) * onnx.helper.tensor_dtype_to_np_dtype(weight.data_type).itemsize)


def _point(weight: TensorProto, start: int, length: int) -> None:
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
        weight.ClearField(field)
    weight.data_location = TensorProto.EXTERNAL
    del weight.external_data[:]
    for key, value in (("location", WEIGHTS), ("offset", start), ("length", length)):
        weight.external_data.append(StringStringEntryProto(key=key, value=str(value)))
