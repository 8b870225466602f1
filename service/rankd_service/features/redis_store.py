"""Feature rows in one Redis or Valkey server: a request is one MGET."""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType
from typing import Any

from rankd_service.features.redis_client import RedisClient
from rankd_service.features.redis_connection import pack

__all__ = ["ROW_TYPES", "RedisStore"]

ROW_TYPES = frozenset({bytes, NoneType})


class RedisStore:
    """Reads rows through a client, which is closed with it."""

    def __init__(self, client: RedisClient) -> None:
        """Take the client over."""
        self._client = client

    def __repr__(self) -> str:
        return f"RedisStore({self._client})"

    @property
    def outstanding(self) -> int:
        """Reads that have not ended, abandoned ones included."""
        return self._client.outstanding

    @property
    def abandoned(self) -> int:
        """Reads that nobody waits for any more."""
        return self._client.abandoned

    @property
    def connections_opened(self) -> int:
        """Connections opened so far; it stays put while a server is merely slow."""
        return self._client.connections_opened

    async def read(self, keys: Sequence[str], budget_s: float) -> list[bytes | None]:
        """Return the values under all keys, in their order. Raises StoreUnavailable."""
        if not keys:
            return []

        def rows(reply: Any) -> bool:
            return type(reply) is list and len(reply) == len(keys) and ROW_TYPES.issuperset(map(type, reply))

        found: list[bytes | None] = await self._client.ask(pack("MGET", *keys), rows, budget_s)
        return found

    async def ping(self, budget_s: float) -> bool:
        """Tell whether the server answered within the budget."""
        return await self._client.ping(budget_s)

    async def close(self) -> None:
        """End outstanding reads and close every connection. Reads fail afterwards."""
        await self._client.close()
