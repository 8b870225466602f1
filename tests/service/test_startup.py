"""The process as operators meet it: exit codes, messages, signals, memory."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from rankd_service.inference.session import cuda_absence
from tests.service.conftest import ITEMS
from tests.support.bundles import mlp, publish_bundle
from tests.support.process import environment, service_process
from tests.support.server import free_port


def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rankd_service", *arguments],
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def nowhere() -> str:
    return f"redis://127.0.0.1:{free_port()}/0"


def test_g7_wrong_settings_end_the_process_with_2_and_one_line_a_mistake(tmp_path: Path) -> None:
    config = tmp_path / "rankd.yaml"
    config.write_text("server: {prot: 8080}\nlimits: {max_candidates: many}\n")
    ended = run("--config", str(config), RANKD_SEVER__PORT="1")
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 3
    assert "server.prot: unknown key; did you mean 'port'?" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_g9_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run(REDIS_URL=nowhere(), RANKD_SERVER__PORT=str(port), RANKD_MODELS__REPOSITORY=str(tmp_path))
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use; free the port" in line
    assert "--port" in line


@pytest.mark.skipif(cuda_absence() is None, reason="this machine has CUDA")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_f8_required_cuda_that_is_not_there_ends_the_start_and_says_what_to_do(
    tmp_path: Path, workers: str
) -> None:
    settings = {"RANKD_INFERENCE__PROVIDER": "require_cuda", "RANKD_MODELS__REPOSITORY": str(tmp_path)}
    port = str(free_port())
    ended = run(REDIS_URL=nowhere(), RANKD_SERVER__PORT=port, RANKD_SERVER__WORKERS=workers, **settings)
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if "require_cuda" in line]
    assert "inference.provider is require_cuda, but" in line
    assert "install" in line or "nvidia-smi" in line
    assert "with prefer_cuda graphs run on the CPU instead" in line
    assert "Traceback" not in ended.stderr


def test_an_address_that_names_no_store_is_refused_without_its_password(tmp_path: Path) -> None:
    port = str(free_port())
    ended = run(
        REDIS_URL="http://:opensesame@host/", RANKD_SERVER__PORT=port, RANKD_MODELS__REPOSITORY=str(tmp_path)
    )
    assert ended.returncode == 1
    assert "redis" in ended.stderr
    assert "opensesame" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_g6_without_store_and_bundles_the_process_is_alive_and_sigterm_ends_it_with_0(tmp_path: Path) -> None:
    settings = {"models": {"repository": str(tmp_path / "none")}}
    with service_process(tmp_path, settings, REDIS_URL=nowhere()) as service:
        assert httpx.get(f"{service.address}/livez").status_code == 200
        ready = httpx.get(f"{service.address}/readyz")
        assert ready.status_code == 503
        assert len(ready.json()["missing"]) == 2
    assert service.process.returncode == 0


def test_every_line_a_service_writes_is_json(tmp_path: Path) -> None:
    publish_bundle(tmp_path / "models")
    settings = {"models": {"repository": str(tmp_path / "models")}}
    with service_process(tmp_path, settings, REDIS_URL=nowhere()) as service:
        httpx.get(f"{service.address}/readyz")
        service.process.terminate()
        _, written = service.process.communicate(timeout=30)
    lines = [json.loads(line) for line in written.decode().splitlines()]
    messages = [line["message"] for line in lines]
    assert sorted(messages) == [
        "draining",
        "listening",
        "not told of changes: item rows are read from the store until it is back",
        "serving",
        "stopped",
    ]


def test_p4_with_the_store_down_from_the_start_answers_are_degraded(tmp_path: Path) -> None:
    publish_bundle(tmp_path / "models")
    settings = {"models": {"repository": str(tmp_path / "models")}}
    with service_process(tmp_path, settings, REDIS_URL=nowhere()) as service:
        answer = httpx.post(f"{service.address}/v1/rank/films", json={"user": "42", "item_ids": ITEMS})
    assert answer.status_code == 200
    assert answer.headers["x-degraded"] == "store_down"


def test_a_serving_process_stays_under_300_mb(tmp_path: Path) -> None:
    publish_bundle(tmp_path / "models", graph=mlp(512, 4))
    settings = {"models": {"repository": str(tmp_path / "models")}}
    with (
        service_process(tmp_path, settings, REDIS_URL=nowhere()) as service,
        httpx.Client(base_url=service.address) as client,
    ):
        for n in range(1, 2000, 20):
            body = {"user": "42", "item_ids": list(range(n))}
            assert client.post("/v1/rank/films", json=body).status_code == 200
        assert service.resident_bytes() < 300 << 20


def test_i3_the_service_starts_where_torch_training_and_export_are_absent() -> None:
    absent = "torch", "rankd_training", "rankd_export", "onnx", "pyarrow", "sklearn"
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); import rankd_service.app"
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, timeout=30)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may listen on every port")
def test_g9_a_privileged_port_is_named(tmp_path: Path) -> None:
    ended = run(REDIS_URL=nowhere(), RANKD_SERVER__PORT="80", RANKD_MODELS__REPOSITORY=str(tmp_path))
    assert ended.returncode == 1
    assert "Permission denied" in ended.stderr


def test_g7_the_verdict_on_settings_takes_less_than_two_seconds_of_work() -> None:
    before = os.times()
    assert run("--config", "nowhere.yaml").returncode == 2
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 2
