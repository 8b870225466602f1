"""A real store with rows in it, and a service as its own process over it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import redis

from rankd_contract.columns import Column
from rankd_contract.encoding import Encoder
from rankd_contract.schema import Entity
from rankd_contract.schema_file import parse_schema
from rankd_service.features.embedded import EmbeddedStore
from tests.support.bundles import BUCKETS, SCHEMA_TEXT, echo, item_rows, publish_bundle, user_rows
from tests.support.process import ServiceProcess, service_process

SCHEMA = parse_schema(SCHEMA_TEXT)
USERS = [f"user-{i}" for i in range(50)]
ITEMS = [str(i) for i in range(2000)]


@dataclass(frozen=True)
class Stack:
    """A service over a store."""

    service: ServiceProcess
    store: EmbeddedStore

    def fill(self) -> None:
        """Write the rows of all users and items."""
        now_s = time.time()  # rows of today
        rows = {**user_rows(SCHEMA, USERS, now_s), **item_rows(SCHEMA, ITEMS, now_s)}
        with redis.Redis.from_url(self.store.url) as client:
            client.mset(rows)

    def rank(self, body: object) -> httpx.Response:
        return httpx.post(f"{self.service.address}/v1/rank/films", json=body, timeout=10)

    def metric(self, series: str) -> float:
        """The value of one series, written as the exposition writes it."""
        for line in httpx.get(f"{self.service.address}/metrics").text.splitlines():
            if line.startswith(f"{series} "):
                return float(line.rpartition(" ")[2])
        raise KeyError(series)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    publish_bundle(tmp_path / "models", graph=echo)
    settings: dict[str, dict[str, object]] = {
        "models": {"repository": str(tmp_path / "models")},
        "features": {"fetch_cap_ms": 2000},  # the machine may be busy with other tests
    }
    with (
        EmbeddedStore.attach_or_start(tmp_path / "store", first_pause_s=0.1) as store,
        service_process(tmp_path, settings, REDIS_URL=store.url) as service,
    ):
        stack = Stack(service, store)
        stack.fill()
        yield stack


def echoes(entity: Entity, field: str, ids: list[str]) -> dict[str, float]:
    """What the echo bundle must answer for each id: the encoded id of its own row."""
    encoder = Encoder(SCHEMA, entity)
    at = encoder.by_name[field]
    columns = {
        f.field.source: Column.from_python(ids if f.field.name == field else [None] * len(ids), f.field)
        for f in encoder.layout.fields
    }
    encoded = encoder.encode(columns, len(ids)).ids[:, at.ids.start]
    return {one: value / BUCKETS for one, value in zip(ids, encoded.tolist(), strict=True)}
