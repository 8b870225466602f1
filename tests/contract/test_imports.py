from __future__ import annotations

import os
import pkgutil
import subprocess
import sys

import rankd_contract

LISTS_IMPORTS = """
import sys
before = set(sys.modules)
import {module}
stdlib = set(sys.stdlib_module_names) | {{"__mp_main__", "_distutils_hack"}}
found = {{name.partition(".")[0] for name in set(sys.modules) - before}} - stdlib
print(" ".join(sorted(found)))
"""


def imported_by(module: str) -> set[str]:
    """Return the top-level packages outside the standard library that importing `module` loads."""
    done = subprocess.run(
        [sys.executable, "-c", LISTS_IMPORTS.format(module=module)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return set(done.stdout.split())


def test_the_contract_costs_numpy_and_yaml_only() -> None:
    modules = [m.name for m in pkgutil.iter_modules(rankd_contract.__path__, "rankd_contract.")]
    assert "rankd_contract.bundle" in modules
    assert imported_by(", ".join(modules)) <= {"rankd_contract", "numpy", "yaml", "_yaml"}


def test_the_package_itself_costs_nothing() -> None:
    assert imported_by("rankd_contract") == {"rankd_contract"}
