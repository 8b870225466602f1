"""The command line and the Python client. Imports the other packages lazily and holds no logic."""

from __future__ import annotations

from rankd.client import Client, RankdError, RankedItem, Ranking

__all__ = ["Client", "RankdError", "RankedItem", "Ranking"]
