"""Settings from plain mappings (JSON, the command line): known keys and right types only.

Says what is wrong and what was expected; whether values make sense is checked where they are used.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from rankd_training.errors import SettingError

__all__ = ["read_config"]

_Config = TypeVar("_Config")
_EXAMPLES = {int: ("64", "32")}


def read_config(
    config_type: type[_Config], given: Mapping[str, Any], *, elsewhere: Sequence[str] = ()
) -> _Config:
    """Build a dataclass; keys left out keep their defaults, lists become tuples.

    `elsewhere` are keys such as `model.heads` that are read by others, to be named where one is meant.

    Raises:
        SettingError: a key is unknown or a value has the wrong type.
    """
    hints = get_type_hints(config_type)
    known = [f.name for f in fields(config_type)]  # type: ignore[arg-type]  # callers pass dataclasses
    values = {}
    for key, value in given.items():
        if key not in known:
            near = [name for name in elsewhere if name.rpartition(".")[2] == key]
            near = near or difflib.get_close_matches(key, [*known, *elsewhere], 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
            raise SettingError(f"{config_type.__name__} has no setting {key!r}; {hint}")
        taken = tuple(value) if isinstance(value, list) else value
        if not _fits(taken, hints[key]):
            raise SettingError(f"{config_type.__name__}.{key}: expected {_words(hints[key])}, got {value!r}")
        values[key] = taken
    return config_type(**values)


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        return any(_fits(value, option) for option in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(entry, arguments[0]) for entry in value)
    if origin is not None:
        return isinstance(value, origin)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _words(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        return " or ".join(_words(option) for option in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        example = f", as [{', '.join(_EXAMPLES[arguments[0]])}]" if arguments[0] in _EXAMPLES else ""
        return f"a list of {_words(arguments[0])}{example}"
    if origin is Mapping:
        return "a mapping" + (", as {user_id: 0.5}" if arguments[1] is float else "")
    return "nothing (null)" if hint is type(None) else str((origin or hint).__name__)
