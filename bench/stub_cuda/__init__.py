"""A CUDA device that computes nothing, so that a machine without one can ask onnxruntime's CUDA provider.

The provider's own code decides which nodes it takes, what it fuses, where it would copy and whether a graph
could be captured; only kernels do not run, so scores are meaningless. The CUDA libraries that the installed
provider links are replaced by functions that return 0, compiled here from what it says it needs; memory is
the host's. `cudart.c` and its neighbours hold the few that must answer something.

Needs gcc and binutils. Never for serving: a process has to be started with `environment()` to see it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

__all__ = ["absence", "build", "environment", "soname_of", "with_all_kernels"]

_HERE = Path(__file__).resolve().parent
_CUDA, _TENSORRT = "libonnxruntime_providers_cuda.so", "libonnxruntime_providers_tensorrt.so"
# By file: what nm writes behind a symbol of a library with versions, or how its names begin.
_LIBRARIES = {
    "libcudart.so": r"@libcudart\.so",
    "libcublas.so": r"@libcublas\.so",
    "libcublasLt.so": r"@libcublasLt\.so",
    "libcurand.so": r"^curand",
    "libcuda.so": r"^cu[A-Z]",
}


def absence() -> str | None:
    """Say what is missing here; None where nothing is."""
    missing = [tool for tool in ("gcc", "nm", "readelf", "strings") if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    return None if (_package() / "capi" / _CUDA).exists() else f"onnxruntime has no {_CUDA} here"


def build(folder: Path) -> Path:
    """Compile the libraries into a folder."""
    provider = _package() / "capi" / _CUDA
    symbols = [line.split()[-1] for line in _lines("nm", "-D", "--undefined-only", provider)]
    for library, pattern in _LIBRARIES.items():
        for name in soname_of(library):
            wanted = {s.split("@")[0] for s in symbols if re.search(pattern, s)}
            _compile(folder, name, sorted(wanted), pattern)
    # Opened when a kernel first asks for it, its functions by name.
    opened = {s for s in _lines("strings", "-n", "6", provider) if re.fullmatch(r"cudnn[A-Z]\w+", s)}
    _compile(folder, "libcudnn.so", sorted(opened), "")
    return folder


def soname_of(*libraries: str) -> list[str]:
    """Return what the provider links of these, such as libcudart.so.13: also the version of its symbols."""
    needed = "\n".join(_lines("readelf", "-d", _package() / "capi" / _CUDA))
    found = (re.search(rf"\[({re.escape(library)}\.\d+)\]", needed) for library in libraries)
    return [match[1] for match in found if match]


def environment(folder: Path) -> Mapping[str, str]:
    """Return the environment of a process that is to see the device.

    It sees onnxruntime under another path, for that loads what lies in `nvidia` beside it before anything
    else: real libraries, where torch or `rankd[cuda]` brought them.
    """
    made = folder / "site" / "onnxruntime"
    if not made.exists():
        shutil.copytree(_package(), made, copy_function=os.symlink)
    path = os.pathsep.join(filter(None, (str(made.parent), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": path}


def with_all_kernels(folder: Path) -> Mapping[str, str]:
    """Likewise, of one that is to list all kernels: onnxruntime asks TensorRT too, which is not there."""
    seen = environment(folder)
    # Each finds its neighbours by the path that it was itself loaded by.
    tensorrt = folder / "site" / "onnxruntime" / "capi" / _TENSORRT
    tensorrt.unlink(missing_ok=True)
    _gcc(tensorrt, _HERE / "tensorrt.c")
    return seen


def _compile(folder: Path, name: str, symbols: list[str], pattern: str) -> None:
    own = _HERE / f"{name.split('.', maxsplit=1)[0].removeprefix('lib')}.c"
    written = own.read_text(encoding="utf-8") if own.exists() else ""
    generated = folder / f"{name}.c"
    others = [s for s in symbols if not re.search(rf"\b{s}\(", written)]
    product = re.compile(r"cublas\w*(gemm|Gemm|LtMatmul)(?!Algo|Desc|Preference)")
    functions = [
        f"long {s}(void) {{ {'stub_products++; ' * bool(product.match(s))}return 0; }}\n" for s in others
    ]
    generated.write_text(written + "".join(functions), encoding="utf-8")
    versions = folder / f"{name}.map"
    versions.write_text(f"{name} {{ global: *; }};\n", encoding="utf-8")
    versioned = [f"-Wl,--version-script={versions}"] if pattern.startswith("@") else []
    _gcc(folder / name, generated, f"-Wl,-soname,{name}", *versioned)


def _gcc(made: Path, source: Path, *options: str) -> None:
    subprocess.run(["gcc", "-w", "-shared", "-fPIC", "-o", made, source, *options], check=True)


def _lines(*command: str | Path) -> list[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def _package() -> Path:
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
