"""Letter B of the fault matrix, end to end: whatever stands under a row's key, the answer says what it is.

The row format's own promises, byte by byte, are in `tests/contract/test_packing.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from rankd_contract.keys import key_prefix
from rankd_contract.schema_file import parse_schema
from rankd_service.app import build
from rankd_service.settings_sources import load_settings
from tests.support.bundles import SCHEMA_TEXT, item_rows, price, publish_bundle, user_rows
from tests.support.server import running
from tests.support.valkey import Valkey

pytestmark = pytest.mark.fault
SCHEMA = parse_schema(SCHEMA_TEXT)
PREFIX = key_prefix("rankd", SCHEMA, SCHEMA.view("item"))
GOOD, DEFAULT = 0.25, 0.5


@dataclass
class Scene:
    """A service over a store whose rows are spoilt; `price` answers the number in the item's row."""

    client: httpx.Client
    store: Valkey

    def rank(self, ids: list[str]) -> dict[str, object]:
        answer = self.client.post("/v1/rank/films", json={"user": "1", "item_ids": ids, "sort": False})
        assert answer.status_code == 200, answer.text
        body: dict[str, object] = answer.json()
        return body

    def scores(self, ids: list[str]) -> list[float]:
        items = self.rank(ids)["items"]
        assert isinstance(items, list)
        return [round(item["score"], 4) for item in items]

    def reads(self, status: str) -> float:
        line = f'rankd_feature_reads_total{{status="{status}",view="item"}} '
        return float(self.client.get("/metrics").text.partition(line)[2].split()[0])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder: Path = tmp_path_factory.mktemp("rows")
    publish_bundle(folder / "models", "films", price)
    with Valkey(folder) as store:
        settings = load_settings(
            models={"repository": folder / "models"},
            redis={"url": SecretStr(store.url)},
            features={"near_cache_mb": 0},
        )
        store.put(user_rows(SCHEMA, ["1"], time.time()))
        with running(build(settings)) as address, httpx.Client(base_url=address) as client:
            yield Scene(client, store)


def sound(ids: list[str], cost: float = GOOD, age_s: float = 0) -> dict[str, bytes]:
    return item_rows(SCHEMA, ids, time.time() - age_s, [cost] * len(ids))


def of_another_schema(item: str) -> bytes:
    other = parse_schema(SCHEMA_TEXT.replace("[drama, comedy, crime]", "[crime, drama, comedy]"))
    (row,) = item_rows(other, [item], time.time(), [0.75]).values()
    return row


SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda row: row[:-1],
    "empty": lambda row: b"",
    "one byte more": lambda row: row + b"\0",
    "a bit flipped": lambda row: row[:20] + bytes([row[20] ^ 4]) + row[21:],
    "text": lambda row: b'{"price": 0.75}',
    "a megabyte": lambda row: row * (1 + (1 << 20) // len(row)),
}


@pytest.mark.fault("B3")
@pytest.mark.fault("B4")
@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_row_is_a_default_row_and_its_neighbours_are_exact(scene: Scene, how: str) -> None:
    ids = ["10", "11", "12"]
    rows, before = sound(ids), scene.reads("CORRUPT")
    key = f"{PREFIX}11"
    scene.store.put({**rows, key: SPOILT[how](rows[key])})
    body = scene.rank(ids)
    assert scene.scores(ids) == [GOOD, DEFAULT, GOOD]
    assert body["degraded"] == [
        {"stage": "feature_fetch", "rung": "default_row", "reason": "rows_unreadable", "affected": 1}
    ]
    assert body["feature_status"]["item"] == {"PRESENT": 2, "CORRUPT": 1}  # type: ignore[index]
    assert scene.reads("CORRUPT") == before + 2


@pytest.mark.fault("B3")
def test_a_row_cut_anywhere_is_never_half_read(scene: Scene) -> None:
    ((key, row),) = sound(["20"], 0.75).items()
    scene.store.put({f"{PREFIX}2{n:03}": row[:n] for n in range(len(row))})
    assert scene.scores([f"2{n:03}" for n in range(len(row))]) == [DEFAULT] * len(row)
    assert key not in {f"{PREFIX}2{n:03}" for n in range(len(row))}


@pytest.mark.fault("B6")
def test_a_row_of_another_schema_is_never_read_by_position(scene: Scene) -> None:
    scene.store.put({f"{PREFIX}30": of_another_schema("30")})
    before = scene.reads("MISMATCH")
    assert scene.scores(["30"]) == [DEFAULT]
    assert scene.reads("MISMATCH") == before + 1


@pytest.mark.fault("B12")
def test_the_row_of_another_item_is_not_taken_for_its_own(scene: Scene) -> None:
    (row,) = sound(["41"], 0.75).values()
    scene.store.put({**sound(["41"], 0.75), f"{PREFIX}40": row})
    before = scene.reads("FOREIGN")
    assert scene.scores(["40", "41"]) == [DEFAULT, 0.75]
    assert scene.reads("FOREIGN") == before + 1


@pytest.mark.fault("B10")
@pytest.mark.fault("B11")
def test_a_row_too_old_or_from_the_future_is_not_relied_on(scene: Scene) -> None:
    day_s = 86_400
    scene.store.put(sound(["50"], 0.75, age_s=31 * day_s))
    scene.store.put(sound(["51"], 0.75, age_s=29 * day_s))
    scene.store.put(sound(["52"], 0.75, age_s=-2 * day_s))
    body = scene.rank(["50", "51", "52"])
    assert scene.scores(["50", "51", "52"]) == [DEFAULT, 0.75, DEFAULT]
    assert body["feature_status"]["item"] == {"PRESENT": 1, "OUTSIDE_MAX_AGE": 2}  # type: ignore[index]


@pytest.mark.fault("B13")
def test_rows_rewritten_while_they_are_read_are_old_or_new(scene: Scene) -> None:
    ids = [str(i) for i in range(600, 700)]
    old, new = sound(ids, 0.25), sound(ids, 0.75)
    scene.store.put(old)
    ended = threading.Event()

    def rewrite() -> None:
        with scene.store.client() as client:
            while not ended.is_set():
                for rows in (new, old):
                    for key, row in rows.items():
                        client.set(key, row)

    writer = threading.Thread(target=rewrite)
    writer.start()
    seen = {score for _ in range(100) for score in scene.scores(ids)}
    ended.set()
    writer.join()
    assert seen == {0.25, 0.75}
