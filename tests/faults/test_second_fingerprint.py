"""Rows of a second fingerprint beside the first: filled while the old version serves, read by the new."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankd_contract.keys import key_prefix
from rankd_contract.repository import point_to
from rankd_contract.schema import FeatureSchema
from rankd_contract.schema_file import parse_schema
from rankd_service.features.importer import import_rows
from tests.support.bundles import SCHEMA_TEXT, price, publish_bundle, user_rows
from tests.support.process import ServiceProcess, service_process
from tests.support.valkey import Valkey

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.redis]

# One more genre: how a genre is encoded changes, so rows of items do, and those of users do not.
OTHER_TEXT = SCHEMA_TEXT.replace("[drama, comedy, crime]", "[drama, comedy, crime, horror]")
FIRST, SECOND = parse_schema(SCHEMA_TEXT), parse_schema(OTHER_TEXT)
PRICES = {1: 0.25, 2: 0.75}
ITEMS = [str(i) for i in range(2000)]
ASKED = ITEMS[::20]


def filled(folder: Path, schema: FeatureSchema, cost: float, url: str) -> None:
    """Import all items at one price, which is the score that the bundle answers."""
    table = pa.table(
        {
            "item_id": pa.array(ITEMS),
            "genre": pa.array(["crime"] * len(ITEMS)),
            "price": pa.array([cost] * len(ITEMS)),
            "year": pa.array([1985] * len(ITEMS)),
            "event_time": pa.array([int(time.time())] * len(ITEMS)),
        }
    )
    path = folder / "items.parquet"
    pq.write_table(table, path)
    import_rows(path, schema, schema.view("item"), url, batch_rows=100)


def item_prefix(schema: FeatureSchema) -> str:
    return key_prefix("rankd", schema, schema.view("item"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path) as server:
        server.put(user_rows(FIRST, ["42"], time.time()))
        yield server


@pytest.fixture
def models(tmp_path: Path, store: Valkey) -> Path:
    publish_bundle(tmp_path / "models", "films", price)
    filled(tmp_path, FIRST, PRICES[1], store.url)
    return tmp_path / "models"


def served(folder: Path, models: Path, store: Valkey) -> Any:
    settings: dict[str, dict[str, object]] = {
        "models": {"repository": str(models), "refresh_s": 0.05},
        "features": {"fetch_cap_ms": 1000},
    }
    return service_process(folder, settings, REDIS_URL=store.url)


def ask(service: ServiceProcess) -> tuple[int, Counter[float]]:
    """Ask for one slate -> its version, and how many candidates have which score."""
    body = {"user": "42", "item_ids": ASKED, "deadline_ms": 2000}
    answer = httpx.post(f"{service.address}/v1/rank/films", json=body, timeout=10)
    assert answer.status_code == 200, answer.text
    tree = answer.json()
    assert tree["degraded"] == []
    assert tree["feature_status"] == {"user": {"PRESENT": 1}, "item": {"PRESENT": len(ASKED)}}
    return tree["version"], Counter(round(item["scores"]["liked"], 4) for item in tree["items"])


def test_no_request_sees_rows_of_two_fingerprints_while_one_follows_the_other(
    tmp_path: Path, models: Path, store: Valkey
) -> None:
    assert item_prefix(FIRST) != item_prefix(SECOND)
    wrong: list[Any] = []
    seen: Counter[int] = Counter()
    over = threading.Event()

    def storm(service: ServiceProcess) -> None:
        while not over.is_set():
            try:
                version, scores = ask(service)
            except Exception as error:
                wrong.append(error)
                return
            seen[version] += 1
            if scores != {PRICES[version]: len(ASKED)}:
                wrong.append((version, scores))

    def until_it_serves(version: int) -> None:
        give_up, before = time.monotonic() + 20, seen[version]
        while seen[version] < before + 20 and not wrong:
            assert time.monotonic() < give_up, seen
            time.sleep(0.01)

    with served(tmp_path, models, store) as service:
        callers = [threading.Thread(target=storm, args=(service,)) for _ in range(3)]
        for caller in callers:
            caller.start()
        try:
            until_it_serves(1)
            filled(tmp_path, SECOND, PRICES[2], store.url)  # the backfill, beside what is served
            until_it_serves(1)
            publish_bundle(models, "films", price, OTHER_TEXT)  # the cut-over
            until_it_serves(2)
            point_to(models, "films", 1)  # and back: the first rows are still there
            until_it_serves(1)
            point_to(models, "films", 2)
            until_it_serves(2)
        finally:
            over.set()
            for caller in callers:
                caller.join()
    assert not wrong, wrong[:3]
    with served(tmp_path, models, store) as service:  # a restart reads what was published last
        assert ask(service) == (2, {PRICES[2]: len(ASKED)})


@pytest.mark.fault("B6")
def test_a_row_of_another_fingerprint_is_counted_as_such_and_not_decoded(
    tmp_path: Path, models: Path, store: Valkey
) -> None:
    filled(tmp_path, SECOND, PRICES[2], store.url)
    publish_bundle(models, "films", price, OTHER_TEXT)
    with store.client() as client:
        client.set(item_prefix(SECOND) + "20", client.get(item_prefix(FIRST) + "20"))
    with served(tmp_path, models, store) as service:
        answer = httpx.post(
            f"{service.address}/v1/rank/films", json={"user": "42", "item_ids": ASKED}, timeout=10
        ).json()
        scores = {item["id"]: round(item["scores"]["liked"], 4) for item in answer["items"]}
        assert scores.pop("20") == 0.5, "the default of the schema, and neither of the two prices"
        assert set(scores.values()) == {PRICES[2]}
        assert answer["feature_status"]["item"] == {"PRESENT": len(ASKED) - 1, "MISMATCH": 1}
        assert [(d["reason"], d["affected"]) for d in answer["degraded"]] == [("rows_unreadable", 1)]
        metrics = httpx.get(f"{service.address}/metrics").text
        assert 'rankd_feature_reads_total{status="MISMATCH",view="item"} 1.0' in metrics
