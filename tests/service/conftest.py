"""One service on a real server, over a store of ours, for all tests that only ask."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from rankd_contract.schema_file import parse_schema
from rankd_service.app import build
from rankd_service.settings_sources import load_settings
from tests.support.bundles import SCHEMA_TEXT, echo, item_rows, price, publish_bundle, user_rows
from tests.support.memory_store import MemoryStore
from tests.support.server import running, until_ready

ITEMS = [str(i) for i in range(50)]


@dataclass(frozen=True)
class Service:
    """A running service: how to ask it, and the store it reads."""

    client: httpx.Client
    address: str
    store: MemoryStore

    def rank(self, body: object, model: str = "films", **headers: str) -> httpx.Response:
        return self.client.post(f"/v1/rank/{model}", json=body, headers=headers)

    def metric(self, name: str, **labels: str) -> float:
        """The value of one series, 0 where it does not exist."""
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        for line in self.client.get("/metrics").text.splitlines():
            head, _, value = line.rpartition(" ")
            if head.partition("{")[0] == name and wanted <= set(
                head.partition("{")[2].rstrip("}").split(",")
            ):
                return float(value)
        return 0.0


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    repository: Path = tmp_path_factory.mktemp("models")
    publish_bundle(repository, "films", echo)
    publish_bundle(repository, "price", price)
    schema, now_s = parse_schema(SCHEMA_TEXT), time.time()
    prices = [0.01 * (1 + (7 * i) % 50) for i in range(len(ITEMS))]
    store = MemoryStore({**user_rows(schema, ["42"], now_s), **item_rows(schema, ITEMS, now_s, prices)})
    settings = load_settings(models={"repository": repository}, limits={"max_body_bytes": 1 << 20})
    with running(build(settings, store)) as address, httpx.Client(base_url=address, timeout=10) as client:
        until_ready(address)
        yield Service(client, address, store)


@pytest.fixture
def service(served: Service) -> Iterator[Service]:
    """The service, with a store that works at the start of every test."""
    served.store.failure = None
    yield served
    served.store.failure = None


@pytest.fixture(autouse=True)
def _no_bug_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A request that failed by a bug of ours fails the test, whatever the test looked at."""
    yield
    bugs = [r for when in ("setup", "call") for r in caplog.get_records(when) if r.levelno >= logging.ERROR]
    assert not [
        r.getMessage() for r in bugs if r.name.startswith(("rankd_service", "uvicorn")) and r.exc_info
    ]
