from __future__ import annotations

import pytest

from rankd_service.errors import StartupFailed
from rankd_service.features.store_address import NodeAddress, StoreKind, parse_address, shown_url

READ = {
    "redis+cluster://h:7000,i": (StoreKind.CLUSTER, [("h", 7000), ("i", 6379)], "", "0"),
    "rediss+cluster://u:p@h:1,[::1]:2/0?ssl_ca_certs=c": (StoreKind.CLUSTER, [("h", 1), ("::1", 2)], "", "0"),
    "redis+sentinel://h,i:2/films": (StoreKind.SENTINEL, [("h", 26379), ("i", 2)], "films", "0"),
    "redis+sentinel://:p@h/films/3": (StoreKind.SENTINEL, [("h", 26379)], "films", "3"),
}


@pytest.mark.parametrize("url", list(READ))
def test_nodes_service_and_database_are_read_off_an_address(url: str) -> None:
    kind, nodes, service, database = READ[url]
    address = parse_address(url)
    assert (address.kind, list(address.nodes)) == (kind, [NodeAddress(*node) for node in nodes])
    assert (address.service, address.database) == (service, database)


@pytest.mark.parametrize("url", ["redis://h:1/0", "rediss://h", "unix:///s", "nonsense", ""])
def test_an_address_of_one_server_is_left_to_whoever_connects(url: str) -> None:
    assert parse_address(url).kind is StoreKind.SERVER


def test_each_node_is_greeted_as_the_address_says() -> None:
    cluster = parse_address("rediss+cluster://user:p%40ss@h:1,i:2/0?ssl_ca_certs=%2Fca.pem")
    assert cluster.of_node(NodeAddress("10.0.0.1", 7000)) == (
        "rediss://user:p%40ss@10.0.0.1:7000/0?ssl_ca_certs=%2Fca.pem"
    )
    assert cluster.of_node(NodeAddress("::1", 7)) == "rediss://user:p%40ss@[::1]:7/0?ssl_ca_certs=%2Fca.pem"
    url = "redis+sentinel://user:secret@h/films/3?sentinel_username=s&sentinel_password=t&client_name=c"
    watched = parse_address(url)
    assert watched.of_node(NodeAddress("h", 1)) == "redis://user:secret@h:1/3?client_name=c"
    assert watched.of_sentinel(NodeAddress("h", 2)) == "redis://h:2?username=s&password=t"


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://",
        "redis+cluster://h:port",
        "redis+cluster://h:0",
        "redis+cluster://h:99999",
        "redis+cluster://h,,i",
        "redis+cluster://h/3",
        "redis+sentinel://h",
        "redis+sentinel://h/films/three",
        "redis+sentinel://h/films/0/0",
        "redis+nobody://h",
        "http+cluster://h",
        "redis+cluster://:secret@h:port",
    ],
)
def test_an_address_that_is_none_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(StartupFailed, match="expected redis\\+cluster://") as refused:
        parse_address(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis+cluster://:secret@h:1,i:2", "redis+cluster://***@h:1,i:2"),
        ("redis+sentinel://h/films?sentinel_password=secret", "redis+sentinel://h:26379/films"),
        ("rediss+cluster://u:se@cret@h", "rediss+cluster://***@h:6379"),
        ("redis+cluster://u:secret@h:port", "an unreadable address"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert shown_url(url) == shown
