"""Writes export/rankd_export/cuda/kernels.json: what the installed onnxruntime has CUDA kernels for.

    python bench/cuda_kernels.py

Read out of the registry of the installed CUDA provider itself, which docs/OperatorKernels.md of onnxruntime
is made of; on a device that computes nothing (`bench/stub_cuda`), so no GPU is needed.
Kept are operators of ONNX from opset 20 on, which is what export writes, and com.microsoft's.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import stub_cuda

REPOSITORY = Path(__file__).resolve().parent.parent
TABLE = REPOSITORY / "export" / "rankd_export" / "cuda" / "kernels.json"
OLDEST_OPSET = 20
DOMAINS = ("", "com.microsoft")
_OPEN = 2**31 - 1

# Leaves at once: objects of the made-up TensorRT provider must not be destroyed.
_LISTING = """
import json, os, sys
from onnxruntime import __version__
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_opkernel_def
rows = [
    [k.domain, k.op_name, *k.version_range, {name: sorted(t) for name, t in k.type_constraints.items()}]
    for k in get_all_opkernel_def() if k.provider == "CUDAExecutionProvider"
]
json.dump([__version__, rows], sys.stdout)
sys.stdout.flush()
os._exit(0)
"""


def listed() -> tuple[str, list[Any]]:
    """Return the installed version and all kernels: domain, operator, first and last opset, types."""
    with tempfile.TemporaryDirectory() as folder:
        path = stub_cuda.build(Path(folder))
        out = subprocess.run(
            [sys.executable, "-c", _LISTING],
            env=stub_cuda.with_all_kernels(path),
            check=True,
            capture_output=True,
            text=True,
        )
    version, rows = json.loads(out.stdout)
    return version, rows


def table() -> dict[str, Any]:
    """Return the table as it is written."""
    version, rows = listed()
    kernels: dict[str, dict[str, list[Any]]] = {domain: {} for domain in DOMAINS}
    for domain, operator, first, last, types in rows:
        if domain in kernels and (domain or last >= OLDEST_OPSET):
            plain = {k: [t.removeprefix("tensor(").removesuffix(")") for t in v] for k, v in types.items()}
            kernels[domain].setdefault(operator, []).append([first, None if last == _OPEN else last, plain])
    ordered = {
        domain: {name: sorted(found[name], key=json.dumps) for name in sorted(found)}
        for domain, found in kernels.items()
    }
    return {
        "source": "the registry of onnxruntime-gpu's CUDA provider, by bench/cuda_kernels.py",
        "onnxruntime": version,
        "oldest_opset": OLDEST_OPSET,
        "kernels": ordered,
    }


def text(found: dict[str, Any]) -> str:
    """One operator a line, so that a new version is a short difference."""
    head = json.dumps({k: v for k, v in found.items() if k != "kernels"}, indent=1)[:-2]
    domains = []
    for domain, operators in found["kernels"].items():
        lines = [f"   {json.dumps(name)}: {json.dumps(kernels)}" for name, kernels in operators.items()]
        domains.append(f"  {json.dumps(domain)}: {{\n" + ",\n".join(lines) + "\n  }")
    return f'{head},\n "kernels": {{\n' + ",\n".join(domains) + "\n }\n}\n"


def main() -> None:
    """Write the table."""
    missing = stub_cuda.absence()
    if missing:
        raise SystemExit(missing)
    TABLE.write_text(text(table()), encoding="utf-8")


if __name__ == "__main__":
    main()
