"""Which server of several is the primary: sentinels know, and are asked whenever a connection is opened.

A failover ends the connections to the old primary, so that nobody has to watch for one. Asking is redis-py's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis import sentinel as blocking
from redis.asyncio import sentinel as awaiting
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.retry import Retry as BlockingRetry

from rankd_service.features.store_address import NodeAddress, StoreAddress

__all__ = ["MasterFinder"]

_AwaitingSentinel: Callable[..., Any] = awaiting.Sentinel
_BlockingSentinel: Callable[..., Any] = blocking.Sentinel


class MasterFinder:
    """Asks sentinels in turn, each for its part of `timeout_s`. Raises errors of redis-py."""

    def __init__(self, address: StoreAddress, timeout_s: float) -> None:
        """Keep the address; nobody is asked yet."""
        self._address, self._timeout_s = address, timeout_s
        self._sentinels = [(node.host, node.port) for node in address.nodes]

    async def find(self) -> str:
        """Return the address of the primary."""
        options = self._options(Retry(NoBackoff(), 0))
        finder = _AwaitingSentinel(self._sentinels, sentinel_kwargs=options)
        try:
            async with asyncio.timeout(self._timeout_s):
                return self._url(await finder.discover_master(self._address.service))
        finally:
            for sentinel in finder.sentinels:
                await sentinel.aclose()

    def find_blocking(self) -> str:
        """Do the same where nothing else runs."""
        options = self._options(BlockingRetry(NoBackoff(), 0))
        finder = _BlockingSentinel(self._sentinels, sentinel_kwargs=options)
        try:
            return self._url(finder.discover_master(self._address.service))
        finally:
            for sentinel in finder.sentinels:
                sentinel.close()

    def _url(self, found: tuple[str, int]) -> str:
        return self._address.of_node(NodeAddress(*found))

    def _options(self, retry: Any) -> dict[str, Any]:
        options: dict[str, Any] = {**parse_url(self._address.of_sentinel(self._address.nodes[0]))}
        for name in ("host", "port", "db"):
            options.pop(name, None)
        tls = options.pop("connection_class", None) is SSLConnection
        each_s = self._timeout_s / len(self._sentinels)
        return {
            **options,
            "ssl": tls,
            "socket_timeout": each_s,
            "socket_connect_timeout": each_s,
            "retry": retry,
            "protocol": 2,
        }
