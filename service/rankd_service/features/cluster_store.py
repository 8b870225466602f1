"""Feature rows in a Redis or Valkey cluster: each primary is asked for its own keys, all of them at once.

A server refuses one MGET over several slots, and a request's keys are nearly all of different ones; so a
primary is sent a GET a key in one write, and a PING with a word of its own behind them. Where the word comes
back last, each reply is the reply to its key: a reply too many, or one too few, would have moved it.

What one primary does not answer in time is lost, and the rows of the others are used. Where the cluster says
that a key is elsewhere, that is followed once, within the budget.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from types import NoneType
from typing import Any

from rankd_service.errors import IncompleteRead, Loss, StartupFailed, StoreErrorKind, StoreUnavailable
from rankd_service.features.redis_client import Question, RedisClient
from rankd_service.features.redis_connection import pack
from rankd_service.features.redis_failures import Redirect, kind_of, redirect_of
from rankd_service.features.redis_store import ROW_TYPES
from rankd_service.features.slot_map import SlotMap
from rankd_service.features.store_address import NodeAddress, StoreAddress, shown_url
from rankd_service.features.topology import Topology

__all__ = ["ClusterStore", "OpenClient"]

_ASKING = b"*1\r\n$6\r\nASKING\r\n"
_PING = pack("PING")
_MAP = pack("CLUSTER", "SLOTS") + pack("CLUSTER", "INFO")
_MAP_S = 0.5
# What may come of a map that is out of date.
_DOUBTFUL = {
    *(StoreErrorKind.REFUSED, StoreErrorKind.RESET, StoreErrorKind.TIMEOUT, StoreErrorKind.BREAKER_OPEN),
    *(StoreErrorKind.MOVED, StoreErrorKind.CLUSTER_DOWN),
}

_REPLIES = (bytes, NoneType, Exception)
_Part = tuple[NodeAddress | None, Sequence[int], bool]  # a node, the keys it is asked for, ASKING or not

OpenClient = Callable[[str], RedisClient]
"""Makes the client of one node, by its address."""


class ClusterStore:
    """Reads rows from the primaries of a cluster, over one client each."""

    def __init__(
        self,
        address: StoreAddress,
        open_client: OpenClient,
        clock: Callable[[], float] = time.monotonic,
        on_map_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Make the clients of the nodes that the address names; they connect when needed."""
        self._address, self._open_client, self._clock = address, open_client, clock
        self._clients = {node: open_client(address.of_node(node)) for node in address.nodes}
        self._retiring: set[asyncio.Task[None]] = set()
        self._opened_by_retired = 0
        self._words = count(1)
        self.topology = Topology(address.nodes, self._ask_for_map, on_failure=on_map_failure)
        self.topology.watch(self._retire)

    def __repr__(self) -> str:
        return f"ClusterStore({shown_url(self._address.url)})"

    @property
    def outstanding(self) -> int:
        """Questions that have not ended, abandoned ones included."""
        return sum(client.outstanding for client in tuple(self._clients.values()))

    @property
    def abandoned(self) -> int:
        """Questions that nobody waits for any more."""
        return sum(client.abandoned for client in tuple(self._clients.values()))

    @property
    def connections_opened(self) -> int:
        """Connections opened so far, to all nodes."""
        return self._opened_by_retired + sum(
            client.connections_opened for client in tuple(self._clients.values())
        )

    async def read(self, keys: Sequence[str], budget_s: float) -> list[bytes | None]:
        """Return the values under all keys, in their order. Raises IncompleteRead or StoreUnavailable."""
        if not keys:
            return []
        ends_s = self._clock() + budget_s
        slots = await self.topology.known(budget_s)
        reading = _Reading([key.encode() for key in keys])
        parts = [(node, positions, False) for node, positions in slots.split(reading.keys)]
        await self._ask(reading, parts, ends_s)
        if reading.redirects:
            await self._follow(reading, slots, ends_s)
        if not reading.losses:
            return reading.rows
        if any(loss.failure.kind in _DOUBTFUL for loss in reading.losses):
            self.topology.doubt()
        raise reading.failure()

    async def ping(self, budget_s: float) -> bool:
        """Tell whether every primary answered within the budget, and every key has one."""
        try:
            slots = await self.topology.known(budget_s)
        except StoreUnavailable:
            return False
        try:
            clients = [self._client(node) for node in slots.primaries]
        except StartupFailed:  # a node that the others call by no name
            return False
        answers = await asyncio.gather(*(client.ping(budget_s) for client in clients))
        return all(answers) and not slots.uncovered

    async def close(self) -> None:
        """End outstanding reads and close every connection. Reads fail afterwards."""
        await self.topology.stop()
        await asyncio.gather(*(client.close() for client in self._clients.values()), *self._retiring)

    async def _follow(self, reading: _Reading, slots: SlotMap, ends_s: float) -> None:
        """Ask once more for keys that are elsewhere."""
        redirects, reading.redirects = reading.redirects, {}
        if all(redirect.node in slots.primaries for redirect in redirects):
            self.topology.doubt()
        else:
            self.topology.stray()
        parts = [(to.node, positions, to.asking) for to, positions in redirects.items()]
        await self._ask(reading, parts, ends_s)
        for to, positions in reading.redirects.items():
            message = f"{len(positions)} keys moved on again, to {to.node}"
            reading.lose(positions, StoreUnavailable(StoreErrorKind.MOVED, message))

    async def _ask(self, reading: _Reading, parts: Iterable[_Part], ends_s: float) -> None:
        """Ask each node for its part, all at once, and take what comes in time."""
        asked: list[tuple[_Part, RedisClient, Question]] = []
        for node, positions, asking in parts:
            if node is None:
                reading.lose(
                    positions, StoreUnavailable(StoreErrorKind.CLUSTER_DOWN, "no primary has the slots")
                )
                continue
            try:
                client = self._client(node)
            except StartupFailed as error:  # a node that calls another by no name
                reading.lose(positions, StoreUnavailable(StoreErrorKind.REFUSED, str(error)))
                continue
            question = self._begin(
                client, [reading.keys[p] for p in positions], asking, ends_s - self._clock()
            )
            asked.append(((node, positions, asking), client, question))
        try:
            for (node, positions, asking), client, question in asked:
                try:
                    replies = await client.answer(question)
                except StoreUnavailable as failure:
                    reading.lose(positions, failure)
                else:
                    assert node is not None
                    reading.take(node, positions, replies[1:-1:2] if asking else replies[:-1])
        finally:
            for _, _, question in asked:
                question.abandon()

    def _begin(self, client: RedisClient, keys: Sequence[bytes], asking: bool, budget_s: float) -> Question:
        word = b"%d" % next(self._words)
        gets = [b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key) for key in keys]
        commands = _ASKING + _ASKING.join(gets) if asking else b"".join(gets)
        num_replies = len(keys) * (2 if asking else 1) + 1

        def check(replies: Any) -> bool:
            # Each of the right kind is the rule; an error stands where a server says that of one key.
            known = ROW_TYPES.issuperset(map(type, replies))
            return replies[-1] == word and (known or all(isinstance(r, _REPLIES) for r in replies))

        return client.begin(commands + pack("PING", word), check, budget_s, num_replies)

    def _client(self, node: NodeAddress) -> RedisClient:
        client = self._clients.get(node)
        if client is None:
            client = self._clients[node] = self._open_client(self._address.of_node(node))
        return client

    def _retire(self, slots: SlotMap) -> None:
        """Let go of nodes that are primaries no more."""
        for node in self._clients.keys() - {*slots.primaries, *self._address.nodes}:
            client = self._clients.pop(node)
            self._opened_by_retired += client.connections_opened
            task = asyncio.create_task(client.retire())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def _ask_for_map(self, node: NodeAddress) -> SlotMap:
        def check(replies: Any) -> bool:
            return isinstance(replies[0], list | Exception) and type(replies[1]) is bytes

        slots, info = await self._client(node).ask(_MAP, check, _MAP_S, replies=2)
        try:
            return SlotMap.parse(slots, info, node)
        except ValueError as error:
            raise StoreUnavailable(StoreErrorKind.PROTOCOL, str(error)) from error


class _Reading:
    """The rows of one read as they come in, and what is lost or elsewhere."""

    def __init__(self, keys: list[bytes]) -> None:
        self.keys = keys
        self.rows: list[bytes | None] = [None] * len(keys)
        self.losses: list[Loss] = []
        self.redirects: dict[Redirect, list[int]] = {}

    def take(self, node: NodeAddress, positions: Sequence[int], replies: Sequence[Any]) -> None:
        """Put a node's replies where they belong."""
        if ROW_TYPES.issuperset(map(type, replies)):
            if len(replies) == len(self.rows):
                self.rows = list(replies)
            else:
                for position, row in zip(positions, replies, strict=True):
                    self.rows[position] = row
            return
        failed: dict[StoreErrorKind, tuple[Exception, list[int]]] = {}
        for position, reply in zip(positions, replies, strict=True):
            if not isinstance(reply, Exception):
                self.rows[position] = reply
            elif (redirect := redirect_of(reply, node)) is not None:
                self.redirects.setdefault(redirect, []).append(position)
            elif not str(reply).startswith("WRONGTYPE"):  # which is no row; MGET says the same
                failed.setdefault(kind_of(reply, connecting=False), (reply, []))[1].append(position)
        for kind, (error, lost) in failed.items():
            self.lose(lost, StoreUnavailable(kind, f"{node}: {kind.value}: {error}"))

    def lose(self, positions: Sequence[int], failure: StoreUnavailable) -> None:
        """Note what a node did not give."""
        self.losses.append(Loss(positions, failure))

    def failure(self) -> StoreUnavailable:
        """Return what to raise, the greatest loss first: all of it, or that a part is missing."""
        losses = sorted(self.losses, key=lambda loss: -len(loss.positions))
        if sum(len(loss.positions) for loss in losses) == len(self.keys):
            return losses[0].failure
        return IncompleteRead(self.rows, losses)
