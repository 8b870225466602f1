"""Where settings come from. Nothing else reads the environment.

Strongest first: the command line, `RANKD_SECTION__KEY`, `REDIS_URL` (the store's address), the YAML file, the
defaults of `settings.py`. A key nobody knows is an error: a misspelt limit would be no limit.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from rankd_contract.errors import YamlError
from rankd_contract.strict_yaml import read_text, read_yaml
from rankd_service.errors import StartupFailed, nearest
from rankd_service.settings import PREFIX, Settings

__all__ = ["load_settings"]

_OTHERS = ("DATA", "HOME")  # the command line's own
# Kubernetes tells every container of a service called `rankd` or `rankd-...`, in such variables.
_SERVICE_LINK = re.compile(
    r"(^|_)(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?)=|(^|_)PORT=(tcp|udp|sctp)://"
)
_LONGEST_NAME = 64


def load_settings(
    config: Path | None = None, *, defaults: dict[str, Any] | None = None, **overrides: dict[str, Any]
) -> Settings:
    """Read the settings; `overrides` (section=dict, from the command line) beat everything.

    `defaults` stand in for those of this file, where the caller knows better. Raises StartupFailed with one
    line a mistake.
    """
    shared = os.environ.get("REDIS_URL")
    sources = (
        defaults or {},
        _read(config) if config else {},
        {"redis": {"url": shared}} if shared else {},
        _environment(),
        overrides,
    )
    mistakes = _unknown_variables()
    try:
        settings = Settings(**_merged(sources))
    except ValidationError as error:
        mistakes += [_mistake(dict(e)) for e in error.errors(include_url=False, include_input=False)]
    if mistakes:
        raise StartupFailed("\n".join(mistakes))
    return settings


def _merged(sources: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Merge section by section; a section that is no mapping is left for validation to report."""
    tree: dict[str, Any] = {}
    for source in sources:
        for section, values in source.items():
            below = tree.get(section)
            tree[section] = (
                {**below, **values} if isinstance(below, dict) and isinstance(values, dict) else values
            )
    return tree


def _read(config: Path) -> dict[str, Any]:
    try:
        text = read_text(config)
    except YamlError as error:
        raise StartupFailed(str(error)) from error
    try:
        tree = read_yaml(text)
    except YamlError as error:
        raise StartupFailed(f"{config}: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise StartupFailed(f"{config}: expected sections such as `server:` or `redis:`, got something else")
    return tree


def _environment() -> dict[str, Any]:
    try:
        return EnvSettingsSource(Settings)()
    except (SettingsError, RecursionError) as error:
        field = re.search(r'field "(\w+)"', str(error))  # a value nested too deeply names none
        start = f"{PREFIX}{field[1] if field else ''}".upper()
        named = ", ".join(sorted(n for n in os.environ if n.upper().startswith(start)))
        raise StartupFailed(
            f"{named}: expected JSON for a whole section; one key is {PREFIX}SECTION__KEY, "
            f"such as {PREFIX}SERVER__PORT=8080"
        ) from error


def _unknown_variables() -> list[str]:
    """Find `RANKD_SEVER__PORT` and `RANKD_SERVER_PORT`: pydantic-settings looks only for names it knows."""
    sections = list(Settings.model_fields)
    mistakes = []
    for name, value in os.environ.items():
        rest = name.removeprefix(PREFIX)
        section = rest.split("__")[0].lower()
        if rest == name or section in sections:
            continue
        if "__" in name:
            mistakes.append(f"{name}: unknown section; {nearest(section, sections)}")
        elif rest not in _OTHERS and not _SERVICE_LINK.search(f"{rest}={value}"):
            mistakes.append(f"{name}: unknown variable; {_nearest_variable(rest)}")
    return mistakes


def _nearest_variable(rest: str) -> str:
    known = {f"{s}_{key}".upper(): f"{s}__{key}".upper() for s in Settings.model_fields for key in _keys([s])}
    known |= {name: name for name in _OTHERS}
    near = difflib.get_close_matches(rest[:_LONGEST_NAME].upper(), known, 1)
    if not near:
        return f"settings are {PREFIX}SECTION__KEY, such as {PREFIX}SERVER__PORT=8080"
    return f"did you mean {PREFIX}{known[near[0]]}?"


def _mistake(error: dict[str, Any]) -> str:
    path = [str(part) for part in error["loc"]]
    where = ".".join(path) or "settings"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key; {nearest(path[-1], _keys(path[:-1]))}"
    words = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {words[0].lower()}{words[1:]}"


def _keys(path: list[str]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in path:
        kind = model.model_fields[part].annotation
        assert isinstance(kind, type)  # every section is a model
        model = kind
    return list(model.model_fields)
