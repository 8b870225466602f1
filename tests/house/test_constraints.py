"""The pins hold wherever they are installed and cover everything the extras ask for."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
# torch pins its CUDA packages itself, exactly, and only where its build has CUDA.
PINNED_BY_TORCH = ("cuda-", "nvidia-", "triton")
LEARNING = {"onnx", "onnxscript", "pyarrow", "safetensors", "scikit-learn", "torch"}


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "constraints" / f"{name}.txt").read_text().splitlines()
    return dict(pin(line) for line in lines if not line.startswith("#"))


def pin(line: str) -> tuple[str, str]:
    name, version = line.split("==")
    return canonicalize_name(name), version


def requirements(extra: str) -> list[Requirement]:
    """The third-party requirements of an extra, with its references to other extras resolved."""
    found = [Requirement(text) for text in PROJECT["dependencies"]]
    for requirement in map(Requirement, EXTRAS[extra]):
        if requirement.name == PROJECT["name"]:
            found += [inner for other in requirement.extras for inner in requirements(other)]
        else:
            found.append(requirement)
    return found


def installed_closure(roots: list[Requirement]) -> set[str]:
    """Every distribution the roots bring in here, by the metadata of what is installed."""
    seen: set[str] = set()
    open_requirements = [(root, extra) for root in roots for extra in ("", *root.extras)]
    visited: set[tuple[str, str]] = set()
    while open_requirements:
        requirement, extra = open_requirements.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name.startswith(PINNED_BY_TORCH):
            continue
        seen.add(name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in visited:
                visited.add((name, wanted))
                needs = importlib.metadata.requires(name) or []
                open_requirements += [(Requirement(need), wanted) for need in needs]
    return seen


@pytest.mark.parametrize("name", ["all", "service"])
def test_a_pin_is_a_name_and_a_release_and_names_no_address(name: str) -> None:
    for line in (ROOT / "constraints" / f"{name}.txt").read_text().splitlines():
        assert line.startswith("# ") or re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line), line


def test_the_serving_pins_are_a_part_of_all_pins() -> None:
    assert pins("service").items() <= pins("all").items()


def test_the_serving_pins_bring_no_learning_framework() -> None:
    assert not LEARNING & pins("service").keys()


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_requirement_of_an_extra_is_pinned_within_its_range(extra: str) -> None:
    pinned = pins("all")
    for requirement in requirements(extra):
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, str(requirement)


@pytest.mark.parametrize(("extra", "name"), [("dev", "all"), ("service", "service")])
def test_everything_an_extra_brings_in_is_pinned(extra: str, name: str) -> None:
    assert installed_closure(requirements(extra)) <= pins(name).keys()


@pytest.mark.parametrize("path", ["scripts/_env", "Dockerfile"])
def test_torch_is_installed_first_within_the_range_of_the_extra(path: str) -> None:
    declared = next(text for text in EXTRAS["training"] if Requirement(text).name == "torch")
    assert f"'{declared}'" in (ROOT / path).read_text()


@pytest.mark.parametrize(
    "path", ["pyproject.toml", "Dockerfile", "scripts/_env", "scripts/constraints", ".ci/run"]
)
def test_nothing_says_where_packages_come_from(path: str) -> None:
    assert not re.search(r"index-url|find-links|trusted-host", (ROOT / path).read_text())
