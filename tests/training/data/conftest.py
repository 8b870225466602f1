from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.training.data import file_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[file_server.FileServer]:
    """A file server on loopback that no proxy of this machine stands before."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with file_server.running() as running:
        yield running
