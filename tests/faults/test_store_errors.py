"""Letter A of the fault matrix: the store refuses with errors of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from rankd_service.errors import StoreErrorKind, StoreUnavailable
from tests.faults.watched import KEYS, ROWS, Watched
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey

pytestmark = pytest.mark.usefixtures("both_links")


@pytest.mark.fault("A13")
def test_a_wrong_password_is_an_auth_error_and_no_hot_loop(tmp_path: Path) -> None:
    with Valkey(tmp_path, "--requirepass", "right") as server:
        for userinfo in ("", ":wrong@", "nobody:right@"):

            async def scenario(userinfo: str = userinfo) -> None:
                url = f"redis://{userinfo}127.0.0.1:{server.port}/0"
                async with Watched(url) as watched:
                    kinds = Counter([await watched.read() for _ in range(200)])
                    assert set(kinds) == {StoreErrorKind.AUTH}
                    with pytest.raises(StoreUnavailable) as failure:
                        await watched.store.read(KEYS, 1.0)
                    assert "wrong" not in str(failure.value).replace("invalid", "")
                    assert "right" not in str(failure.value)

            asyncio.run(scenario())
        with server.client(password="right") as client:
            assert int(client.info("stats")["total_connections_received"]) < 20


@pytest.mark.fault("A13")
def test_a_user_without_permission_is_an_auth_error(own: Valkey) -> None:
    with own.client() as client:
        client.acl_setuser(
            "reader", enabled=True, passwords=["+pw"], keys=["other:*"], commands=["+mget", "+ping"]
        )

    async def scenario() -> None:
        async with Watched(f"redis://reader:pw@127.0.0.1:{own.port}") as watched:
            assert await watched.read() is StoreErrorKind.AUTH
            assert await watched.store.ping(1.0)

    asyncio.run(scenario())


@pytest.mark.fault("A13")
def test_a_key_of_another_type_is_a_missing_row_and_its_neighbours_are_read(own: Valkey) -> None:
    with own.client() as client:
        client.delete(KEYS[1])
        client.rpush(KEYS[1], "not", "a", "row")

    async def scenario() -> None:
        async with Watched(own.url) as watched:
            rows = await watched.store.read(KEYS[:3], 1.0)
            assert rows == [ROWS[KEYS[0]], None, ROWS[KEYS[2]]]

    asyncio.run(scenario())


@pytest.mark.fault("A13")
@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("-NOAUTH Authentication required.", StoreErrorKind.AUTH),
        ("-NOPERM no permission", StoreErrorKind.AUTH),
        ("-WRONGPASS invalid username-password pair", StoreErrorKind.AUTH),
        ("-ERR Protocol error: unauthenticated multibulk length", StoreErrorKind.AUTH),
        ("-LOADING dataset in memory", StoreErrorKind.LOADING),
        ("-MASTERDOWN Link with MASTER is down", StoreErrorKind.LOADING),
        ("-BUSY running a script", StoreErrorKind.REPLY),
        ("-READONLY You can't write", StoreErrorKind.REPLY),
        ("-OOM command not allowed", StoreErrorKind.REPLY),
        ("-CLUSTERDOWN Hash slot not served", StoreErrorKind.CLUSTER_DOWN),
        ("-MOVED 3999 127.0.0.1:6381", StoreErrorKind.MOVED),
        ("-TRYAGAIN Multiple keys", StoreErrorKind.REPLY),
        ("-CROSSSLOT Keys in request", StoreErrorKind.REPLY),
        ("-ERR unknown command", StoreErrorKind.REPLY),
        ("-SOMETHING new", StoreErrorKind.REPLY),
    ],
)
def test_every_error_a_server_replies_with_has_a_kind(
    line: str, kind: StoreErrorKind, shared: Valkey
) -> None:
    async def scenario() -> None:
        async with Proxy(shared.port) as proxy, Watched(proxy.url, connections=1) as watched:
            assert await watched.read() is None
            proxy.corrupt = lambda chunk: f"{line}\r\n".encode()
            assert await watched.read() is kind
            proxy.corrupt = lambda chunk: chunk
            assert await watched.until_normal(limit_s=1.0) < 1.0
            assert watched.errors[kind] >= 1

    asyncio.run(scenario())
