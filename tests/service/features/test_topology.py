from __future__ import annotations

import asyncio

import pytest

from rankd_service.errors import StoreErrorKind, StoreUnavailable
from rankd_service.features.slot_map import SLOTS, SlotMap
from rankd_service.features.store_address import NodeAddress
from rankd_service.features.topology import Topology

A, B, C = (NodeAddress("127.0.0.1", port) for port in (1, 2, 3))
INFO = b"cluster_state:ok\r\ncluster_current_epoch:7\r\n"


def a_map(*primaries: NodeAddress, epoch: int) -> SlotMap:
    return SlotMap(primaries, [0] * SLOTS, epoch)


def refreshed(maps: dict[NodeAddress, SlotMap | None], known: SlotMap | None) -> SlotMap | None:
    """Ask nodes that have these maps, or fail -> the map that is believed afterwards."""

    async def ask(node: NodeAddress) -> SlotMap:
        found = maps[node]
        if found is None:
            raise StoreUnavailable(StoreErrorKind.REFUSED, "down")
        return found

    async def main() -> SlotMap | None:
        topology = Topology(list(maps), ask)
        topology.map = known
        await topology._refresh()
        return topology.map

    return asyncio.run(main())


def test_a_node_that_is_cut_off_is_not_believed_while_another_knows_better() -> None:
    old, new = a_map(A, epoch=6), a_map(B, epoch=8)
    for _ in range(20):  # nodes are asked in an order of chance
        assert refreshed({A: old, B: new}, known=a_map(A, epoch=7)) is new


def test_where_nobody_knows_better_an_older_map_is_better_than_none() -> None:
    founded_anew = a_map(A, epoch=1)
    assert refreshed({A: founded_anew, B: None}, known=a_map(B, epoch=9)) is founded_anew


def test_where_nobody_answers_the_map_stays() -> None:
    known = a_map(A, epoch=1)
    assert refreshed({A: None, B: None}, known=known) is known


def test_whoever_watches_is_told_of_what_is_new_and_of_the_first_map_after_a_stray_key() -> None:
    told: list[object] = []

    async def main() -> None:
        async def ask(node: NodeAddress) -> SlotMap:
            return a_map(A, epoch=1)

        topology = Topology([A], ask)
        topology.watch(told.append, lambda: told.append("stray"))
        await topology._refresh()
        await topology._refresh()
        assert len(told) == 1
        topology.stray()
        await topology._refresh()
        await topology._refresh()

    asyncio.run(main())
    assert [what == "stray" for what in told] == [False, True, False]


def test_a_map_is_read_off_the_servers_own_words() -> None:
    slots = [
        [8192, 16383, [b"10.0.0.2", 2, b"id", []], [b"10.0.0.9", 9, b"replica", []]],
        [0, 99, [b"", 3, b"id", []]],
        [200, 8191, [None, 3, b"id", []]],
    ]
    found = SlotMap.parse(slots, INFO, NodeAddress("10.0.0.1", 1))
    assert found.primaries == (NodeAddress("10.0.0.1", 3), NodeAddress("10.0.0.2", 2))
    assert (found.uncovered, found.epoch) == (100, 7)


@pytest.mark.parametrize(
    "slots",
    [[], [[0, 16384, [b"h", 1, b"id"]]], [[5, 3, [b"h", 1, b"id"]]], [[0]], [b"x"], [[0, 1, b"h"]], None],
)
def test_what_is_no_map_is_refused_with_who_said_it(slots: object) -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.1:1: not a cluster's slots"):
        SlotMap.parse(slots, INFO, NodeAddress("10.0.0.1", 1))
