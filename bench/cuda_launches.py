"""How many kernels a run launches on a CUDA device, counted on one that computes nothing (`bench/stub_cuda`).

    python bench/cuda_launches.py     # a minute; needs no GPU

Of the portable graph, of the graph for CUDA, and of it in fewer bits, for 2,048 candidates: launches that
onnxruntime's CUDA provider makes itself, and products that it asks of cuBLAS. A count says what a captured
graph replays and what contrib operators save; it says nothing of time.
"""

from __future__ import annotations

import ctypes
import json
import logging
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import onnx

from bench import stub_cuda
from bench.models import build, request_of, schema_of, tensors
from rankd_export.cuda.graph import to_cuda
from rankd_export.cuda.narrow import Narrow, narrowed
from rankd_export.graph import to_onnx

MODELS, CANDIDATES = ("mlcc", "infnet", "armnet"), 2048


def graphs(name: str) -> dict[str, onnx.ModelProto]:
    """The graphs of a model with random weights."""
    schema = schema_of(name)
    portable = to_onnx(build(name, schema), schema, tensors(request_of(schema, 6, 3, seed=1)))
    made = to_cuda(portable)
    return {"portable": portable, "cuda": made, **{kind.value: narrowed(made, kind) for kind in Narrow}}


def count(path: Path, name: str) -> tuple[int, int]:
    """Launches and products of the second run of a graph; in a process that sees the device."""
    import onnxruntime as ort  # noqa: PLC0415  # the parent has none of it

    def counted() -> tuple[int, int]:
        libraries = {
            n: ctypes.CDLL(n) for n in stub_cuda.soname_of("libcudart.so", "libcublas.so", "libcublasLt.so")
        }
        kernels, *products = (
            ctypes.c_int.in_dll(library, "stub_kernels" if "cudart" in n else "stub_products").value
            for n, library in libraries.items()
        )
        return kernels, sum(products)

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    provider = ("CUDAExecutionProvider", {"use_tf32": "0", "sdpa_kernel": "19"})
    session = ort.InferenceSession(path, options, providers=[provider])
    request = request_of(schema_of(name), CANDIDATES, 1, seed=1)
    session.run(None, request)
    before = counted()
    session.run(None, request)
    after = counted()
    return after[0] - before[0], after[1] - before[1]


def main() -> None:
    """Count and print."""
    if len(sys.argv) > 1:
        print(json.dumps(count(Path(sys.argv[1]), sys.argv[2])))  # noqa: T201  # for the parent
        return
    missing = stub_cuda.absence()
    if missing:
        raise SystemExit(missing)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    print("| model | graph | launches | products |\n| --- | --- | --- | --- |")  # noqa: T201  # the answer
    with tempfile.TemporaryDirectory() as folder:
        environment = stub_cuda.environment(stub_cuda.build(Path(folder)))
        for name in MODELS:
            for kind, graph in graphs(name).items():
                path = Path(folder) / f"{name}.{kind}.onnx"
                onnx.save(graph, path)
                command = [sys.executable, __file__, path, name]
                out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                launches, products = json.loads(out.stdout.splitlines()[-1])
                print(f"| {name} | {kind} | {launches} | {products} |", flush=True)  # noqa: T201  # likewise


if __name__ == "__main__":
    main()
