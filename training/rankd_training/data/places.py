"""Where data lies: the folder of data sets, and the user's cache. The one reader of these variables."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["ROOT_VARIABLE", "cache_root", "default_root"]

ROOT_VARIABLE = "RANKD_DATA"


def default_root() -> Path:
    """RANKD_DATA, else `rankd/data` in the user's cache."""
    chosen = os.environ.get(ROOT_VARIABLE)  # noqa: TID251 - the one variable that training documents
    return Path(chosen).expanduser() if chosen else cache_root() / "data"


def cache_root() -> Path:
    """`rankd` in the user's cache: what is there can be made again."""
    cache = os.environ.get("XDG_CACHE_HOME")  # noqa: TID251 - where the desktop standard puts caches
    return (Path(cache) if cache else Path.home() / ".cache") / "rankd"
