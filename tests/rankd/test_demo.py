"""The demo as a newcomer runs it, on data that needs no network."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from rankd.client import Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Demo:
    process: subprocess.Popen[str]
    words: str
    url: str
    home: Path


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    home = tmp_path_factory.mktemp("home")
    command = [sys.executable, "-m", "rankd.cli", "demo", "--data", "movielens-synthetic", "--port", "0"]
    environment = {**os.environ, "RANKD_DATA": str(home / "data"), "RANKD_HOME": str(home), "COLUMNS": "200"}
    environment.pop("REDIS_URL", None)
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        # Whoever runs these tests in the background has Ctrl-C ignored, and so would the demo.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # no threads here
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            break
    words = "".join(lines)
    address = re.search(r"http://127\.0\.0\.1:\d+", words)
    assert address, words
    try:
        yield Demo(process, words, address[0], home / "demo")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


def test_demo_prints_ten_titles_with_scores_and_stage_times(demo: Demo) -> None:
    titles = re.findall(r"^ *(\d+)  (.+) \(\d{4}\) +0\.\d{4} +0\.\d{4} +0\.\d{4}$", demo.words, re.MULTILINE)
    assert [int(rank) for rank, _ in titles] == list(range(1, 11))
    assert "500 candidates by mlcc version 1" in demo.words
    for stage in ("parse", "feature_fetch", "assemble", "infer", "postprocess"):
        assert stage in demo.words


def test_the_curl_line_it_prints_works(demo: Demo) -> None:
    (line,) = re.findall(r"^ *(curl .+)$", demo.words, re.MULTILINE)
    url, body = re.findall(r"http://\S+", line)[0], re.findall(r"-d @(\S+)", line)[0]
    answer = httpx.post(url, content=Path(body).read_bytes(), headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert answer.json()["degraded"] == []
    assert answer.json()["feature_status"]["item"] == {"PRESENT": 500}


def test_killing_the_store_leaves_an_honest_answer(demo: Demo) -> None:
    request = json.loads((demo.home / "request.json").read_bytes())
    with Client(demo.url) as client:
        before = client.rank("mlcc", request["user"], request["item_ids"], top_k=500)
        assert before.degraded == ()
        os.kill(int(re.findall(r"kill -9 (\d+)", demo.words)[0]), signal.SIGKILL)
        after = client.rank("mlcc", request["user"], request["item_ids"], top_k=500)
        again = client.rank("mlcc", request["user"], request["item_ids"], top_k=500)
    for answer in (after, again):
        assert len(answer.items) == 500
        assert answer.degraded[0]["rung"] == "default_row"
        assert answer.degraded[0]["affected"] == 500
        # What is still near at hand stands in for the films' own rows.
        assert [entry["rung"] for entry in answer.degraded[1:]] in ([], ["near_cache_row"])
    assert [item.score for item in after.items] != [item.score for item in before.items]
