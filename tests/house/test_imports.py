"""What a process pays for an import: the service never loads torch, the contract only numpy and yaml."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE_ROOTS = [ROOT, *(ROOT / name for name in ("contract", "service", "training", "export"))]
LEARNING = ["onnx", "onnxscript", "rankd_export", "rankd_training", "safetensors", "sklearn", "torch"]

# Imports every module of the packages named in the first argument, those of the second made unimportable, and
# prints the third-party packages that were loaded on the way.
PROBE = """
import importlib, json, pkgutil, sys
packages, forbidden = json.loads(sys.argv[1]), json.loads(sys.argv[2])
sys.modules.update(dict.fromkeys(forbidden))
before = set(sys.modules)
for name in packages:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(loaded - sys.stdlib_module_names - set(packages))))
"""


def loaded_by_importing(*packages: str, without: list[str]) -> set[str]:
    """Names of the third-party packages that a fresh interpreter holds after importing all of these."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(packages), json.dumps(without)],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, SOURCE_ROOTS))},
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    # Only what a distribution provides: extension modules also register names of their own.
    return set(json.loads(done.stdout)) & importlib.metadata.packages_distributions().keys()


def test_every_module_of_the_service_imports_where_torch_cannot() -> None:
    loaded_by_importing("rankd_service", without=LEARNING)


def test_the_service_loads_no_learning_framework_where_it_could() -> None:
    assert not loaded_by_importing("rankd_service", without=[]) & set(LEARNING)


def test_the_probe_itself_sees_what_an_import_brings_in() -> None:
    assert "idna" in loaded_by_importing("httpx", without=[])


def test_the_contract_costs_numpy_and_yaml_only() -> None:
    assert loaded_by_importing("rankd_contract", without=[]) <= {"_yaml", "numpy", "yaml"}


def test_the_command_line_starts_without_any_heavy_package() -> None:
    heavy = {*LEARNING, "fastapi", "onnxruntime", "pyarrow", "rankd_service", "redis"}
    assert not loaded_by_importing("rankd", without=[]) & heavy
