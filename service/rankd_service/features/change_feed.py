"""Hears from the server which rows change, so that rows near at hand are never older than the store's.

Redis and Valkey tell a client of every write under given prefixes (CLIENT TRACKING in broadcasting mode;
https://redis.io/docs/latest/develop/reference/client-side-caching/). The feed keeps one connection for it and
asks it for a sign of life again and again: rows are fresh only as far as the last answer reaches.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from rankd_service.deadline import Clock
from rankd_service.errors import StoreErrorKind
from rankd_service.features.breaker import FIRST_STEP_S, LONGEST_STEP_S
from rankd_service.features.redis_connection import AbstractConnection, Connector
from rankd_service.features.redis_failures import FAILURES, kind_of

__all__ = ["HEARTBEAT_S", "ChangeFeed", "Feed", "Told"]

_CHANNEL = "__redis__:invalidate"
HEARTBEAT_S = 0.25
_PATIENCE_S = 1.0  # beyond a heartbeat; caches stop relying on our word long before
_log = logging.getLogger(__name__)


class Told(Protocol):
    """Who is told of changes: the near caches, or what stands before them."""

    @property
    def prefixes(self) -> list[str]:
        """What keys of interest begin with; none where nothing is kept."""

    def trust(self, prefixes: Collection[str]) -> None:
        """Hear that every change under these prefixes is told from now on."""

    def confirm(self, when_s: float) -> None:
        """Hear that every change up to then has been told."""

    def distrust(self) -> None:
        """Hear that changes may have been missed."""

    def changed(self, keys: Sequence[bytes] | None) -> None:
        """Hear of changed keys; None is all of them."""


class Feed(Protocol):
    """What follows a store, be it one server or a cluster."""

    def start(self) -> None:
        """Begin to follow."""

    async def stop(self) -> None:
        """Follow no more."""


class ChangeFeed:
    """Follows one server on behalf of the near caches. Started once their prefixes are known.

    Every `heartbeat_s` it asks for a sign of life, and tells the caches how far its word reaches; a silence
    of a second more ends the connection. A server that refuses to tell of changes leaves the caches unused,
    which is logged once.
    """

    def __init__(
        self,
        url: str,
        caches: Told,
        *,
        connect_timeout_s: float,
        clock: Clock,
        heartbeat_s: float = HEARTBEAT_S,
        share: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Check the address without connecting. Raises StartupFailed where it is none."""
        self._connector = Connector(url, connect_timeout_s)
        self._caches, self._heartbeat_s, self._share = caches, heartbeat_s, share
        self._task: asyncio.Task[None] | None = None
        self._clock = clock
        self._asked_s: float | None = None
        self._stopping = asyncio.Event()
        self._complaint: str | None = None
        self.following = False

    def start(self) -> None:
        """Begin to follow. Does nothing where nothing is kept."""
        if self._caches.prefixes and self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Give the connection back. The caches are not trusted afterwards."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        step_s = FIRST_STEP_S
        while not self._stopping.is_set():
            try:
                await self._follow()
            except FAILURES as error:
                step_s = FIRST_STEP_S if self.following else min(2 * step_s, LONGEST_STEP_S)
                self._note(error)
            finally:
                self.following = False
                self._caches.distrust()
            await self._stopped(step_s * self._share(0.5, 1.0))

    async def _follow(self) -> None:
        connection = await self._connector.connect()
        try:
            me = await self._ask(connection, "CLIENT", "ID")
            # Told to send word to this very connection: as a subscriber it needs no second protocol.
            prefixes = self._caches.prefixes
            wanted = [part for prefix in prefixes for part in ("PREFIX", prefix)]
            await self._ask(connection, "CLIENT", "TRACKING", "ON", "REDIRECT", me, "BCAST", *wanted)
            await self._ask(connection, "SUBSCRIBE", _CHANNEL)
            # A server that loads its rows, or a replica without its master, lets anybody subscribe.
            while (await self._ask(connection, "PING"))[0] == b"message":
                pass
            self._caches.trust(prefixes)
            self.following, self._complaint = True, None
            await self._listen(connection, prefixes)
        finally:
            await connection.disconnect(nowait=True)

    async def _ask(self, connection: AbstractConnection, *command: str | int) -> Any:
        async with asyncio.timeout(self._heartbeat_s):
            await connection.send_command(*command)
            return await connection.read_response()

    async def _listen(self, connection: AbstractConnection, prefixes: list[str]) -> None:
        """Ask for a sign of life every heartbeat, until one stays out or the feed is stopped.

        Returns as well when other prefixes are of interest: a new model's rows, or an old one's no more.

        Replies come in order: with the answer to a question, every change before the question has been told.
        """
        hearing = asyncio.create_task(self._hear_all(connection))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            while not stopping.done() and self._caches.prefixes == prefixes:
                self._asked_s = self._clock.monotonic_s()
                await connection.send_command("PING")
                for patience_s in (self._heartbeat_s, _PATIENCE_S):
                    await asyncio.wait(
                        (hearing, stopping), timeout=patience_s, return_when=asyncio.FIRST_COMPLETED
                    )
                    if hearing.done():
                        hearing.result()  # it only ends by failing
                    if stopping.done() or self._is_answered():
                        break
                else:
                    raise TimeoutError(f"silent for {self._heartbeat_s + _PATIENCE_S:g} s")
        finally:
            stopping.cancel()
            hearing.cancel()
            await asyncio.gather(hearing, stopping, return_exceptions=True)

    def _is_answered(self) -> bool:
        return self._asked_s is None

    async def _hear_all(self, connection: AbstractConnection) -> None:
        """Pass on what the server says; all that has arrived is heard in one go, however much it is."""
        while True:
            message = await connection.read_response()
            if message[0] == b"message":
                self._caches.changed(message[2])
            elif self._asked_s is not None:
                self._caches.confirm(self._asked_s)
                self._asked_s = None

    async def _stopped(self, patience_s: float) -> None:
        waiting = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((waiting,), timeout=patience_s)
        waiting.cancel()

    def _note(self, error: Exception) -> None:
        kind = kind_of(error, connecting=False)
        complaint = f"{kind.value}: {error}"
        if complaint != self._complaint:
            hint = (
                "allow CLIENT and SUBSCRIBE, or set features.near_cache_mb to 0"
                if kind in {StoreErrorKind.AUTH, StoreErrorKind.REPLY}
                else "item rows are read from the store until it is back"
            )
            _log.warning("not told of changes: %s", hint, extra={"reason": complaint})
        self._complaint = complaint
