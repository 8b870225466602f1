"""Stores that are not there, that refuse, that die, and that are our own: what an import says and keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankd_contract.keys import key_prefix
from rankd_service.errors import StoreErrorKind, StoreUnavailable
from rankd_service.features.embedded import SNAPSHOT, EmbeddedStore
from tests.service.features.example_items import import_items, items
from tests.support.example_schema import EXAMPLE
from tests.support.valkey import Valkey, free_port

pytestmark = pytest.mark.redis

ITEMS = EXAMPLE.view("item_profile")


def test_a_store_that_is_not_there_is_told_with_its_address(tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(StoreUnavailable, match=rf"redis://\*\*\*@127\.0\.0\.1:{port}: refused") as refused:
        import_items(tmp_path, f"redis://:secret@127.0.0.1:{port}", items(3))
    assert refused.value.kind is StoreErrorKind.REFUSED
    assert "secret" not in str(refused.value)


def test_a_store_that_refuses_to_write_is_told(tmp_path: Path) -> None:
    with Valkey(tmp_path, "--maxmemory", "2mb") as full, pytest.raises(StoreUnavailable, match="maxmemory"):
        import_items(tmp_path, full.url, items(20_000))


def test_a_store_that_dies_on_the_way_is_told(tmp_path: Path) -> None:
    with Valkey(tmp_path) as dying, pytest.raises(StoreUnavailable):
        import_items(tmp_path, dying.url, items(2000), batch_rows=100, progress=lambda done, _: dying.kill())


def test_an_embedded_server_keeps_the_rows_over_its_death(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with EmbeddedStore(folder) as store:
        import_items(tmp_path, store.url, items(50))
        assert (folder / SNAPSHOT).exists()
    with EmbeddedStore(folder) as store:
        key = key_prefix("rankd", EXAMPLE, ITEMS) + "149"
        import redis

        with redis.Redis.from_url(store.url, protocol=2) as client:
            assert client.dbsize() == 50
            assert client.get(key)


def test_a_user_who_may_only_write_can_import(tmp_path: Path) -> None:
    with Valkey(tmp_path) as own:
        with own.client() as client:
            client.acl_setuser(
                "writer", enabled=True, passwords=["+pw"], keys=["rankd:*"], commands=["+mset"]
            )
        import_items(tmp_path, f"redis://writer:pw@127.0.0.1:{own.port}", items(3))
        with own.client() as client:
            assert client.dbsize() == 3
