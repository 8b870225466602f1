from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import httpx
import pytest

from rankd_service.app import build
from rankd_service.inference.session import cuda_absence
from rankd_service.logs import JsonLines
from rankd_service.settings_sources import load_settings
from tests.support.bundles import SCHEMA_TEXT, echo, price, publish_bundle
from tests.support.memory_store import MemoryStore
from tests.support.server import running, until_ready

RANK = {"user": "42", "item_ids": ["1"]}


def app_over(repository: Path, **models: object) -> object:
    return build(load_settings(models={"repository": repository, **models}), MemoryStore())


def test_g6_without_any_bundle_the_process_is_alive_and_started_but_not_ready(tmp_path: Path) -> None:
    with running(app_over(tmp_path / "none")) as address, httpx.Client(base_url=address) as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/startupz").status_code == 200
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert "models: none in" in ready.json()["missing"][0]
        assert "`rankd export`" in ready.json()["missing"][0]
        assert client.get("/v1/models").json() == {"models": []}
        answer = client.post("/v1/rank/films", json=RANK)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "NOT_READY")
        assert answer.json()["error"]["retryable"] is True
        assert int(answer.headers["retry-after"]) >= 1


def test_p6_a_refused_bundle_is_never_served_and_the_others_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish_bundle(tmp_path, "sound", echo)
    bad = publish_bundle(tmp_path, "altered", price)
    bad.graph.write_bytes(bad.graph.read_bytes()[:-1])
    with running(app_over(tmp_path)) as address, httpx.Client(base_url=address) as client:
        ready = client.get("/readyz")
        assert ready.status_code == 200
        assert ready.json()["models"] == {"sound": 1}
        assert ready.json()["missing"] == ["model altered: its bundle was refused, the log says why"]
        metrics = client.get("/metrics").text
        assert 'rankd_bundle_loads_total{outcome="refused"} 1.0' in metrics
        assert 'rankd_bundle_loads_total{outcome="loaded"} 1.0' in metrics
        assert client.post("/v1/rank/altered", json=RANK).status_code == 404
        assert client.post("/v1/rank/sound", json=RANK).status_code == 200
    refusals = [r.getMessage() for r in caplog.records if "bundle refused" in r.getMessage()]
    assert len(refusals) == 1
    assert "model.onnx" in refusals[0]


@pytest.mark.skipif(cuda_absence() is None, reason="this machine has CUDA")
@pytest.mark.fault("F8")
def test_preferred_cuda_that_is_not_there_is_said_in_the_log_readyz_and_metrics_and_by_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    publish_bundle(tmp_path, "films", echo)
    settings = load_settings(models={"repository": tmp_path}, inference={"provider": "prefer_cuda"})
    with running(build(settings, MemoryStore())) as address, httpx.Client(base_url=address) as client:
        ready, metrics = client.get("/readyz"), client.get("/metrics").text
        assert client.post("/v1/rank/films", json=RANK).status_code == 200
    assert ready.status_code == 200
    (nodes,) = ready.json()["nodes"].values()
    assert set(nodes) == {"CPUExecutionProvider"}
    assert nodes["CPUExecutionProvider"] > 5
    (said,) = ready.json()["missing"]
    assert said.startswith("CUDA: preferred for films, which runs on CPUExecutionProvider: ")
    series = 'rankd_model_nodes{model="films",provider="CPUExecutionProvider",version="1"} '
    assert f"{series}{nodes['CPUExecutionProvider']}.0" in metrics
    assert 'rankd_model_fallback{model="films",version="1"} 1.0' in metrics
    (warned,) = [r.getMessage() for r in caplog.records if "prefer_cuda" in r.getMessage()]
    assert "films version 1: inference.provider is prefer_cuda, but it runs on CPUExecutionProvider" in warned
    assert "onnxruntime" not in capfd.readouterr().err.lower()


def test_where_the_cpu_was_asked_for_nothing_has_fallen_back(tmp_path: Path) -> None:
    publish_bundle(tmp_path, "films", echo)
    with running(app_over(tmp_path)) as address, httpx.Client(base_url=address) as client:
        assert client.get("/readyz").json()["missing"] == []
        assert 'rankd_model_fallback{model="films",version="1"} 0.0' in client.get("/metrics").text


@pytest.mark.parametrize("pointer", [None, b"{}", b"nonsense"], ids=["removed", "empty", "no-json"])
def test_a_model_without_a_usable_pointer_is_refused_aloud(
    pointer: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish_bundle(tmp_path, "sound", echo)
    publish_bundle(tmp_path, "lost", price)
    path = tmp_path / "lost" / "current.json"
    path.unlink() if pointer is None else path.write_bytes(pointer)
    with running(app_over(tmp_path)) as address, httpx.Client(base_url=address) as client:
        ready = client.get("/readyz").json()
    assert ready["models"] == {"sound": 1}
    assert ready["missing"] == ["model lost: its bundle was refused, the log says why"]
    (refusal,) = [r.getMessage() for r in caplog.records if "bundle refused" in r.getMessage()]
    assert "lost/current.json: no usable pointer" in refusal


def test_a_repository_that_cannot_be_listed_is_said_and_the_start_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "models").write_text("no folder")
    with running(app_over(tmp_path / "models")) as address, httpx.Client(base_url=address) as client:
        assert client.get("/readyz").status_code == 503
    assert "models: cannot be listed: Not a directory" in caplog.text


def test_the_version_the_pointer_names_is_served(tmp_path: Path) -> None:
    publish_bundle(tmp_path, "films", echo)
    publish_bundle(tmp_path, "films", price)
    with running(app_over(tmp_path, keep_warm=0)) as address, httpx.Client(base_url=address) as client:
        assert client.post("/v1/rank/films", json=RANK).json()["version"] == 2
        assert client.post("/v1/rank/films/versions/1", json=RANK).status_code == 404


def test_a_new_process_has_the_version_before_as_one_that_served_it_has(tmp_path: Path) -> None:
    """A worker that replaces another answers what the others answer."""
    for _ in range(3):
        publish_bundle(tmp_path, "films", echo)
    with running(app_over(tmp_path)) as address, httpx.Client(base_url=address) as client:
        assert client.post("/v1/rank/films", json=RANK).json()["version"] == 3
        give_up_s = time.monotonic() + 10
        while client.post("/v1/rank/films/versions/2", json=RANK).status_code != 200:
            assert time.monotonic() < give_up_s, "it is loaded beside the event loop, and takes a moment"
        assert client.post("/v1/rank/films/versions/1", json=RANK).status_code == 404


def test_a_cheaper_model_that_cannot_stand_in_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish_bundle(tmp_path, "films", echo)
    publish_bundle(tmp_path, "other", echo, SCHEMA_TEXT.replace("max_length: 5", "max_length: 6"))
    cheaper = {"films": "other", "other": "nobody", "misspelt": "other"}
    with running(app_over(tmp_path, cheaper=cheaper)) as address:
        until_ready(address)
    assert "models.cheaper: other cannot score for films, it reads other features" in caplog.text
    assert "models.cheaper: nobody for other does nothing, nobody is not served" in caplog.text
    assert "models.cheaper: other for misspelt does nothing, misspelt is not served" in caplog.text


def test_the_store_is_closed_at_the_end(tmp_path: Path) -> None:
    store = MemoryStore()
    with running(build(load_settings(models={"repository": tmp_path}), store)):
        assert store.failure is None
    assert store.failure is not None


def test_a_log_line_is_one_line_of_json_whatever_is_in_it() -> None:
    logger = logging.Logger("rankd_service.test")
    record = logger.makeRecord(
        "rankd_service.test",
        logging.ERROR,
        "f",
        1,
        'a "%s"',
        ("b\nc\0\x1b",),
        None,
        extra={"request_id": "r\n1"},
    )
    line = JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == 'a "b\nc\0\x1b"'
    assert json.loads(line)["request_id"] == "r\n1"
    try:
        raise ValueError("x\ny")
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    line = JsonLines().format(record)
    assert "\n" not in line
    assert "ValueError" in json.loads(line)["exception"]
