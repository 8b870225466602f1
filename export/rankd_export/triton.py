"""A bundle as a model of a Triton repository: its graph, and a config.pbtxt with its inputs and outputs.

User rows and candidates are two sizes of one request, so Triton's own batching, which adds one dimension to
everything, is off (`max_batch_size: 0`). Calibration and the ranking score stay the service's: a graph that
is exported with `calibrated` has its calibrated scores as an output.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory

from rankd_contract.bundle import Bundle
from rankd_contract.manifest import GRAPH, WEIGHTS
from rankd_contract.signature import TensorSpec
from rankd_export.errors import TargetRefused

__all__ = ["Backend", "config_text", "write_triton"]

_CONFIG = "config.pbtxt"
_TYPES = {
    "bool": "TYPE_BOOL",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}


class Backend(StrEnum):
    """What runs the graph in Triton."""

    ONNXRUNTIME = "onnxruntime"
    """The backend of its own, which NVIDIA's images have."""
    PYTHON = "python"
    """Its Python backend, with onnxruntime in that Python: where the other one is not built in."""


def write_triton(
    bundle: Bundle, repository: Path, name: str | None = None, backend: Backend = Backend.ONNXRUNTIME
) -> Path:
    """Write a verified bundle as `repository/name/version` -> that folder.

    `name` is by default the model's. Versions of one model share one config.pbtxt.

    Raises:
        TargetRefused: that version is there already, or the model there takes something else.
        OSError: it cannot be written.
    """
    name = name or bundle.manifest.model
    home, version = repository / name, str(bundle.manifest.version)
    config = config_text(bundle, name, backend)
    if (home / version).exists():
        raise TargetRefused(f"{home / version} is there already; a version is never written over")
    written = home / _CONFIG
    if written.exists() and written.read_text(encoding="utf-8") != config:
        raise TargetRefused(
            f"{written} is of a model with other inputs, outputs or backend; give this one another name, or "
            "remove that one"
        )
    home.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".incoming-", dir=repository) as folder:
        incoming = Path(folder) / version
        incoming.mkdir()
        for file in (GRAPH, WEIGHTS):
            if file in bundle.manifest.files:
                shutil.copyfile(bundle.path / file, incoming / file)
        if backend is Backend.PYTHON:
            (incoming / "model.py").write_text(_MODEL_PY, encoding="utf-8")
        incoming.chmod(0o755)
        (Path(folder) / _CONFIG).write_text(config, encoding="utf-8")
        (Path(folder) / _CONFIG).replace(written)
        incoming.rename(home / version)  # last: a server that polls sees whole versions only
    return home / version


def config_text(bundle: Bundle, name: str, backend: Backend) -> str:
    """Return the text of config.pbtxt."""
    lines = [f"name: {json.dumps(name)}", f"backend: {json.dumps(backend.value)}", "max_batch_size: 0"]
    for kind, specs in (("input", bundle.manifest.inputs), ("output", bundle.manifest.outputs)):
        lines += [f"{kind} [", ",\n".join(_tensors(specs)), "]"]
    if backend is Backend.ONNXRUNTIME:
        lines.append('parameters { key: "intra_op_thread_count" value { string_value: "1" } }')
    else:
        lines.append("instance_group [ { kind: KIND_CPU } ]")
    return "\n".join(lines) + "\n"


def _tensors(specs: tuple[TensorSpec, ...]) -> Iterator[str]:
    for spec in specs:
        dims = ", ".join(str(dim) if isinstance(dim, int) else "-1" for dim in spec.dims)
        yield f"  {{ name: {json.dumps(spec.name)} data_type: {_TYPES[spec.dtype]} dims: [ {dims} ] }}"


_MODEL_PY = '''"""Runs the graph beside this file with onnxruntime, for Triton's Python backend."""

import json
from pathlib import Path

import onnxruntime as ort
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        graph = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        config = json.loads(args["model_config"])
        self.inputs = [tensor["name"] for tensor in config["input"]]

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        given = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
        wanted = list(request.requested_output_names())
        try:
            found = self.session.run(wanted, given)
        except Exception as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        tensors = [pb_utils.Tensor(name, array) for name, array in zip(wanted, found)]
        return pb_utils.InferenceResponse(output_tensors=tensors)
'''
