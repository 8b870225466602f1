"""A feature store that is a dictionary, for tests of what stands above the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rankd_service.errors import StoreErrorKind, StoreUnavailable

__all__ = ["MemoryStore"]


class MemoryStore:
    """Keeps rows in memory. Set `failure` to have reads fail; `reads` and `keys_read` count."""

    def __init__(self, rows: Mapping[str, bytes] | None = None) -> None:
        self.rows = dict(rows or {})
        self.failure: StoreErrorKind | None = None
        self.reads = self.keys_read = 0

    async def read(self, keys: Sequence[str], budget_s: float) -> list[bytes | None]:
        self.reads += 1
        self.keys_read += len(keys)
        if self.failure is not None:
            raise StoreUnavailable(self.failure, "told to fail")
        return [self.rows.get(key) for key in keys]

    async def ping(self, budget_s: float) -> bool:
        return self.failure is None

    async def close(self) -> None:
        self.failure = StoreErrorKind.REFUSED
