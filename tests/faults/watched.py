"""A store under watch: what it answered, which errors it told, and whether every row was the right one."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from rankd_service.errors import StoreErrorKind, StoreUnavailable
from rankd_service.features.redis_client import RedisClient
from rankd_service.features.redis_store import RedisStore

KEYS = [f"key:{i}" for i in range(400)]
ROWS = {key: key.encode().ljust(200, b".") for key in KEYS}

Scenario = Callable[[], Awaitable[None]]
Run = Callable[[Scenario], None]


class Watched:
    """A store, the errors it reported, and whether every row it gave was the one asked for."""

    by_redis_py = False

    def __init__(
        self,
        url: str,
        *,
        connections: int = 4,
        connect_timeout_s: float = 1.0,
        read_timeout_s: float = 2.0,
        max_outstanding: int = 64,
    ) -> None:
        self.errors: Counter[StoreErrorKind] = Counter()
        self.foreign = 0
        client = RedisClient(
            # An option in the address is what our own links leave to redis-py.
            f"{url}?health_check_interval=0" if self.by_redis_py else url,
            connections=connections,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
            max_outstanding=max_outstanding,
            on_error=lambda kind: self.errors.update([kind]),
        )
        self.store = RedisStore(client)

    async def __aenter__(self) -> Watched:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()

    async def read(self, keys: list[str] = KEYS[:20], budget_s: float = 5.0) -> StoreErrorKind | None:
        """Read, and return the kind of failure or None."""
        try:
            rows = await self.store.read(keys, budget_s)
        except StoreUnavailable as failure:
            return failure.kind
        self.foreign += sum(row != ROWS.get(key) for key, row in zip(keys, rows, strict=True))
        return None

    async def until_normal(self, limit_s: float) -> float:
        """Read until an answer comes -> seconds it took."""
        started = time.monotonic()
        while await self.read(budget_s=0.05) is not None:
            assert time.monotonic() - started < limit_s
            await asyncio.sleep(0.005)
        return time.monotonic() - started

    async def until_drained(self) -> None:
        while self.store.outstanding:  # noqa: ASYNC110  # nobody is told when the last reply is drained
            await asyncio.sleep(0.001)
