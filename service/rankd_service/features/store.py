"""What the request path asks of a feature store, and nothing about how one is reached.

A read is never cancelled: past its budget, or when its caller is cancelled, the waiter leaves and the store
drains the reply itself. A connection given up in the middle of a reply would cost a new one, and a reply
left on it would be read as somebody else's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["FeatureStore"]


class FeatureStore(Protocol):
    """Packed rows by key."""

    async def read(self, keys: Sequence[str], budget_s: float) -> list[bytes | None]:
        """Return the values under all keys of a request, in their order; None where there is none.

        Raises StoreUnavailable, whose kind says why: REFUSED, RESET, TIMEOUT (the budget is spent), BUSY (too
        many reads are outstanding), LOADING, AUTH, PROTOCOL or REPLY; of several servers also MOVED and
        CLUSTER_DOWN. Where only some of them failed it is an IncompleteRead, with the rows of the others.
        """

    async def ping(self, budget_s: float) -> bool:
        """Tell whether the store answered within the budget."""

    async def close(self) -> None:
        """End outstanding reads and give back every connection."""
