from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rankd_service.deadline import SystemClock
from rankd_service.features.cluster_feed import ClusterFeed
from rankd_service.features.near_cache import NearLimits
from rankd_service.features.near_caches import NearCaches
from rankd_service.features.slot_map import SLOTS, SlotMap
from rankd_service.features.store_address import NodeAddress, parse_address
from rankd_service.features.topology import Topology
from tests.support.valkey import Valkey


@pytest.mark.redis
@pytest.mark.fault("A16")
def test_a_primary_by_no_name_leaves_nothing_trusted_and_the_others_followed(tmp_path: Path) -> None:
    """A map may say anything of a node, such as an address with two ports; its rows may change untold."""
    clock = SystemClock()
    caches = NearCaches(NearLimits(1 << 20, ttl_s=60, stale_s=60, word_s=60), clock)
    caches.of("rankd:item:", 1, 1)

    async def ask(node: NodeAddress) -> SlotMap:
        raise AssertionError("the map is told, not asked for")

    async def main(server: Valkey) -> None:
        seed = NodeAddress("127.0.0.1", server.port)
        topology = Topology([seed], ask)
        address = parse_address(f"redis+cluster://127.0.0.1:{server.port}")
        feed = ClusterFeed(address, topology, caches, connect_timeout_s=1, clock=clock)
        nameless = NodeAddress("10.0.0.9:6379", 6380)
        topology.map = SlotMap((nameless, seed), [at % 2 for at in range(SLOTS)], 1)
        feed.start()
        while not all(one.following for one, _ in feed._feeds.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert list(feed._feeds) == [seed]
        assert not feed.following
        (cache,) = caches
        assert not cache._trusted
        topology.map = SlotMap((seed,), [0] * SLOTS, 2)
        feed._follow(topology.map)
        assert feed.following
        assert cache._trusted
        await feed.stop()

    with Valkey(tmp_path) as server:
        asyncio.run(main(server))
