"""Names people type: an unknown one is answered with the nearest known one, and with all of them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from rankd.cli.screen import fail, wants
from rankd.client import Client, RankdError
from rankd_contract.errors import ContractError
from rankd_contract.repository import model_names, open_current
from rankd_contract.schema import FeatureSchema

__all__ = [
    "ARCHITECTURES",
    "check_architecture",
    "check_served",
    "only_model",
    "published_schema",
    "served_instead",
    "unknown",
]

_NEAR = 0.5  # two letters of four that changed places still say what was meant

# What `--help` says without importing torch; a test holds it to the registry.
ARCHITECTURES = (
    "mlcc",
    "infnet",
    "armnet",
    "dcnv2",
    "wukong",
    "dlrm",
    "deepfm",
    "mmoe",
    "ple",
    "optinter",
    "dnn",
    "fm",
    "lr",
)


def unknown(option: str, name: str, known: Sequence[str], what: str) -> NoReturn:
    """Leave with exit code 2; `what` says what the known names are."""
    near = difflib.get_close_matches(name, known, 1, _NEAR)
    guess = f"did you mean '{near[0]}'? " if near else ""
    fail(f"{option} {name}: unknown; {guess}{what}: {', '.join(known)}", 2)


def check_architecture(name: str) -> None:
    """Leave where no model of that name can be trained."""
    with wants():
        from rankd_training.models import registry
        from rankd_training.yardsticks import registry as yardsticks
    if name in yardsticks.names():
        fail(f"--model {name}: a yardstick, which is fitted by `rankd compare --models {name},...`", 2)
    if name not in registry.names():
        unknown("--model", name, registry.names(), "models to train")


def published_schema(repository: Path, name: str) -> FeatureSchema:
    """Return the schema of a published model; leaves where there is none, or its bundle is refused."""
    with wants(ContractError):
        known = model_names(repository)
        if not known:
            fail(f"--model {name}: nothing is published in {repository}; publish a run with `rankd export`")
        if name not in known:
            unknown("--model", name, known, f"published in {repository}")
        return open_current(repository, name).schema


def check_served(client: Client, name: str) -> None:
    """Leave where a service names its models and has none of that name; what else is wrong shows later."""
    with suppress(RankdError):
        known = [str(m["model"]) for m in client.models()]
        if known and name not in known:
            unknown("--model", name, known, "served")


def only_model(client: Client) -> str:
    """Return the name of the one model that is served; leaves where there is none, or a choice."""
    names = [str(m["model"]) for m in client.models()]
    if len(names) != 1:
        fail(f"--model is needed: the service has {', '.join(names) or 'no model'}", 2)
    return names[0]


def served_instead(client: Client, name: str, error: RankdError) -> NoReturn:
    """Leave, where a service refused a model's name with the names it serves, else with its own words."""
    if error.code != "UNKNOWN_MODEL":
        fail(str(error))
    with wants(RankdError):
        unknown("--model", name, [str(m["model"]) for m in client.models()], "served")
