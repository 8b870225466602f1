"""Letter F of the fault matrix: models that are exchanged, spoilt, taken away, put back under load."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from rankd_contract.bundle import Bundle
from rankd_contract.repository import point_to
from rankd_contract.schema_file import parse_schema
from rankd_service.app import build
from rankd_service.settings_sources import load_settings
from tests.support.bundles import (
    SCHEMA_TEXT,
    echo,
    echo_version,
    item_rows,
    price,
    publish_bundle,
    publish_files_over,
)
from tests.support.memory_store import MemoryStore
from tests.support.process import ServiceProcess, service_process
from tests.support.server import free_port, running
from tests.support.valkey import Valkey

pytestmark = pytest.mark.fault
BODY = {"user": "1", "item_ids": [str(i) for i in range(100)]}
PATH = "/v1/rank/films"


def publish(repository: Path, version: int) -> Bundle:
    bundle = publish_bundle(repository, "films", echo_version(version))
    assert bundle.manifest.version == version
    return bundle


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish(tmp_path / "models", 1)
    return tmp_path / "models"


@pytest.fixture
def client(repository: Path) -> Iterator[httpx.Client]:
    """A service that looks at its repository all the time."""
    settings = load_settings(models={"repository": repository, "refresh_s": 0.02})
    with running(build(settings, MemoryStore())) as address, httpx.Client(base_url=address) as client:
        yield client


def version_of(answer: httpx.Response) -> int:
    """The version that an answer names, which all its scores must be of."""
    assert answer.status_code == 200, answer.text
    body = answer.json()
    named: int = body["version"]
    assert answer.headers["x-model-version"] == str(named)
    assert {round(100 * item["score"]) for item in body["items"]} == {named}
    return named


def until(what: Callable[[], bool], limit_s: float = 10.0) -> None:
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < limit_s
        time.sleep(0.005)


def serves(client: httpx.Client, version: int) -> Callable[[], bool]:
    return lambda: version_of(client.post(PATH, json=BODY)) == version


def loads(client: httpx.Client, outcome: str) -> float:
    line = f'rankd_bundle_loads_total{{outcome="{outcome}"}} '
    return float(client.get("/metrics").text.partition(line)[2].split()[0])


def swap_under_load(
    repository: Path, address: str, seconds: float, least: int = 0
) -> tuple[Counter[int], int]:
    """Publish, and point back now and then, five times a second -> answers by version, and swaps.

    It goes on for longer until so many versions at least have answered: a busy machine takes them up late.
    """
    answers: Counter[int] = Counter()
    ended = threading.Event()
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            with httpx.Client(base_url=address, timeout=10) as caller:
                while not ended.is_set():
                    answers[version_of(caller.post(PATH, json=BODY))] += 1
        except BaseException as failure:
            failures.append(failure)

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    dice, swaps, newest, began = random.Random(0), 0, 1, time.monotonic()
    while not failures and (
        time.monotonic() - began < seconds or (len(answers) < least and time.monotonic() - began < 30)
    ):
        swaps += 1
        if newest == 99 or dice.random() < 0.2:
            point_to(repository, "films", dice.randint(max(1, newest - 3), newest))
        else:
            newest = publish(repository, newest + 1).manifest.version
        time.sleep(max(0.0, began + 0.2 * swaps - time.monotonic()))
    ended.set()
    for caller in callers:
        caller.join()
    assert not failures, failures[0]
    return answers, swaps


@pytest.mark.fault("F3")
def test_every_answer_is_of_one_version_while_versions_change(client: httpx.Client, repository: Path) -> None:
    answers, swaps = swap_under_load(repository, str(client.base_url), 2.0, least=4)
    assert swaps >= 8
    assert len(answers) >= 4


@pytest.mark.load
@pytest.mark.timeout(180)
@pytest.mark.fault("F3")
def test_a_minute_of_swaps_loses_no_request(tmp_path: Path, repository: Path) -> None:
    settings = {"models": {"repository": str(repository), "refresh_s": 0.05}}
    with service_process(tmp_path, settings, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0") as service:
        answers, swaps = swap_under_load(repository, service.address, 60.0)
    assert swaps >= 250
    assert len(answers) >= 50


@pytest.mark.fault("F1")
def test_an_altered_bundle_is_never_seen_and_the_one_before_goes_on(
    client: httpx.Client, repository: Path
) -> None:
    assert serves(client, 1)()
    second = publish(repository.parent / "elsewhere", 1)
    home, altered = repository / "films" / "2", bytearray(second.graph.read_bytes())
    shutil.copytree(second.path, home)
    altered[len(altered) // 2] ^= 1
    (home / "model.onnx").write_bytes(altered)
    pointer = (repository.parent / "elsewhere" / "films" / "current.json").read_text()
    (repository / "films" / "current.json").write_text(pointer.replace('"version": 1', '"version": 2'))
    until(lambda: loads(client, "refused") == 1)
    for _ in range(20):
        assert version_of(client.post(PATH, json=BODY)) == 1
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["missing"] == [
        "model films: its bundle was refused, the log says why; version 1 goes on being served"
    ]
    assert loads(client, "refused") <= 3  # tried again, but not at every look
    shutil.rmtree(home)
    publish(repository, 2)
    until(serves(client, 2))
    assert client.get("/readyz").json()["missing"] == []


@pytest.mark.fault("F4")
def test_a_bundle_whose_scores_are_not_the_recorded_ones_is_never_seen(
    client: httpx.Client, repository: Path
) -> None:
    other = publish_bundle(repository.parent / "elsewhere", "films", echo)
    golden = {"golden.npz": other.golden.read_bytes()}
    first = point_to(repository, "films", 1)
    publish_files_over(first, repository, golden)
    until(lambda: loads(client, "refused") == 1)
    assert serves(client, 1)()


@pytest.mark.fault("F9")
def test_a_pointer_put_back_is_followed_without_loading(client: httpx.Client, repository: Path) -> None:
    publish(repository, 2)
    until(serves(client, 2))
    before = loads(client, "loaded")
    assert version_of(client.post(f"{PATH}/versions/1", json=BODY)) == 1  # kept warm
    point_to(repository, "films", 1)
    until(serves(client, 1), limit_s=1.0)
    assert loads(client, "loaded") == before
    publish(repository, 3)
    until(serves(client, 3))
    assert client.post(f"{PATH}/versions/2", json=BODY).status_code == 404  # no longer kept
    info = [line for line in client.get("/metrics").text.splitlines() if line.startswith("rankd_model_info{")]
    assert len(info) == 1
    assert 'version="3"' in info[0]


@pytest.mark.fault("F12")
def test_a_repository_that_is_removed_does_not_end_the_service(
    client: httpx.Client, repository: Path
) -> None:
    shutil.rmtree(repository)
    time.sleep(0.1)  # a few looks
    assert serves(client, 1)()
    publish(repository, 1)
    publish(repository, 2)
    until(serves(client, 2))


@pytest.mark.fault("F2")
def test_a_bundle_whose_files_come_after_its_pointer_is_served_once_they_are_there(
    client: httpx.Client, repository: Path
) -> None:
    publish(repository.parent / "elsewhere", 1)
    second = publish(repository.parent / "elsewhere", 2)
    home = repository / "films" / "2"
    home.mkdir()
    (home / "manifest.json").write_bytes((second.path / "manifest.json").read_bytes())
    pointer = (second.path.parent / "current.json").read_bytes()
    (repository / "films" / "current.json").write_bytes(pointer)
    until(lambda: loads(client, "refused") >= 1)
    assert serves(client, 1)()
    shutil.copytree(second.path, home, dirs_exist_ok=True)
    until(serves(client, 2))
    assert client.get("/readyz").json()["missing"] == []


@pytest.mark.fault("F1")
def test_a_new_process_goes_on_with_the_version_before_a_spoilt_one(repository: Path) -> None:
    second = publish(repository, 2)
    second.graph.write_bytes(second.graph.read_bytes()[:-1])
    settings = load_settings(models={"repository": repository, "refresh_s": 0.02})
    with running(build(settings, MemoryStore())) as address, httpx.Client(base_url=address) as client:
        assert serves(client, 1)()
        (said,) = client.get("/readyz").json()["missing"]
        assert said.endswith("version 1 goes on being served")
        shutil.rmtree(repository / "films")
        until(lambda: client.get("/readyz").json()["missing"] == [])
        assert serves(client, 1)()


def test_a_model_that_is_published_later_is_served(client: httpx.Client, repository: Path) -> None:
    assert client.post("/v1/rank/late", json=BODY).status_code == 404
    publish_bundle(repository, "late", echo)
    until(lambda: client.post("/v1/rank/late", json=BODY).status_code == 200)
    assert client.get("/readyz").json()["models"] == {"films": 1, "late": 1}


@pytest.mark.fault("F3")
def test_a_version_with_other_features_reads_its_own_rows_and_is_told_of_their_changes(
    tmp_path: Path,
) -> None:
    repository = tmp_path / "models"
    other = SCHEMA_TEXT.replace("[drama, comedy, crime]", "[crime, drama, comedy]")
    body = {"user": "1", "item_ids": ["7"], "sort": False}
    with Valkey(tmp_path) as store:

        def put(text: str, cost: float) -> None:
            store.put(item_rows(parse_schema(text), ["7"], time.time(), [cost]))

        def cost_now() -> float:
            score: float = caller.post(PATH, json=body).json()["items"][0]["score"]
            return round(score, 4)

        publish_bundle(repository, "films", price)
        put(SCHEMA_TEXT, 0.25)
        put(other, 0.35)
        settings = load_settings(
            models={"repository": repository, "refresh_s": 0.02}, redis={"url": SecretStr(store.url)}
        )
        with running(build(settings)) as address, httpx.Client(base_url=address) as caller:
            until(lambda: cost_now() == 0.25 and hits(caller) > 0)
            publish_bundle(repository, "films", price, other)
            until(lambda: cost_now() == 0.35)
            before = hits(caller)
            until(lambda: cost_now() == 0.35 and hits(caller) > before)
            put(other, 0.45)
            until(lambda: cost_now() == 0.45, limit_s=1.0)  # sooner than any time to live
            point_to(repository, "films", 1)
            until(lambda: cost_now() == 0.25)


def hits(client: httpx.Client) -> float:
    line = 'rankd_cache_requests_total{cache="l1_item",result="hit"} '
    return float(client.get("/metrics").text.partition(line)[2].split()[0])


@pytest.mark.slow
@pytest.mark.fault("F10")
def test_fifty_swaps_do_not_grow_the_process(tmp_path: Path, repository: Path) -> None:
    settings = {"models": {"repository": str(repository), "refresh_s": 0.02}}
    resident: list[int] = []

    def swap_to(service: ServiceProcess, client: httpx.Client, version: int) -> None:
        publish(repository, version)
        until(serves(client, version))
        resident.append(service.resident_bytes())

    with (
        service_process(tmp_path, settings, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0") as service,
        httpx.Client(base_url=service.address) as client,
    ):
        for version in range(2, 57):
            swap_to(service, client, version)
    assert resident[-1] < 1.1 * resident[4]
