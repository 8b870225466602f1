"""Servers to be tormented, both kinds of links to them, and both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from tests.faults.watched import ROWS, Run, Scenario, Watched
from tests.support.valkey import Valkey


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server that tests look at through proxies and leave as it is."""
    with Valkey(tmp_path_factory.mktemp("shared")) as server:
        server.put(ROWS)
        yield server


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Valkey]:
    """A server to kill and to freeze."""
    with Valkey(tmp_path) as server:
        server.put(ROWS)
        yield server


@pytest.fixture(params=["our own links", "redis-py"])
def both_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise everything of both kinds of links."""
    monkeypatch.setattr(Watched, "by_redis_py", request.param == "redis-py")


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a scenario on each kind of event loop."""

    def run_it(scenario: Scenario) -> None:
        async def main() -> None:
            await scenario()

        (uvloop.run if request.param == "uvloop" else asyncio.run)(main())

    return run_it
