"""Every line on the stderr of a serving process is JSON, whoever writes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
from onnx import numpy_helper

from rankd_contract.schema import FeatureSchema
from tests.support.bundles import echo, publish_bundle
from tests.support.process import environment, service_process
from tests.support.server import free_port

EVERYBODY_SPEAKS = """
import logging, sys, threading, warnings
import numpy as np
from rankd_service.logs import log_to_stderr

log_to_stderr("INFO")
warnings.warn("one\\ntwo", RuntimeWarning)
np.ones(2) / np.zeros(2)
more = {"big": 10**30, "by": {(1, 2): 3, 4: "\\ud800"}}
logging.getLogger("elsewhere").info("a name %s", "\\udcff", extra=more)
thread = threading.Thread(target=lambda: 1 / 0, name="worker")
thread.start()
thread.join()

class Dies:
    def __del__(self):
        raise ValueError("late\\nwords")

Dies()
raise RuntimeError("the\\nend")
"""


TALKS_ON = """
import logging, sys
from rankd_service.logs import log_to_stderr

log_to_stderr("INFO")
for number in range(30_000):
    logging.info("line %d of a hundred bytes or so, which is more than a pipe can hold of them", number)
sys.stdout.write("goes on\\n")
sys.stdout.flush()
sys.stdin.readline()
logging.getLogger().handlers[0].flush()
logging.info("the last word")
"""


def lines_of(stderr: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stderr.decode().splitlines()]


def test_warnings_and_exceptions_that_nobody_caught_are_lines_of_json() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", EVERYBODY_SPEAKS],
        env=environment(),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
    lines = lines_of(ended.stderr)
    assert [line["level"] for line in lines] == ["warning", "warning", "info", "error", "error", "critical"]
    said = [line["message"] for line in lines]
    assert "RuntimeWarning: one\ntwo" in said[0]
    assert "RuntimeWarning: divide by zero" in said[1]
    assert said[2] == "a name ?"
    assert lines[2]["big"] == 10**30
    assert said[3] == "worker ended by ZeroDivisionError: division by zero"
    assert "ValueError: late\nwords" in lines[4]["exception"]
    assert said[5] == "uncaught RuntimeError: the\nend"
    assert "Traceback" in lines[5]["exception"]


def unused_weights(schema: FeatureSchema) -> onnx.GraphProto:
    """A graph that the runtime warns about while it loads it."""
    graph = echo(schema)
    graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "read_by_nobody"))
    return graph


def test_a_service_whose_runtime_warns_and_fails_writes_json_only(tmp_path: Path) -> None:
    models = tmp_path / "models"
    publish_bundle(models, "warns", unused_weights)
    with np.load(publish_bundle(tmp_path / "sound").golden, allow_pickle=False) as arrays:
        golden = dict(arrays)
    golden["r1/in_row"] = golden["r1/in_row"] + 99  # the runtime logs an error of its own kernel
    publish_bundle(models, "fails", golden=golden)
    strange = models / os.fsdecode(b"no\xffunicode")
    strange.mkdir()
    (strange / "current.json").write_text("{}")
    settings = {"models": {"repository": str(models)}}
    with service_process(tmp_path, settings, REDIS_URL=f"redis://127.0.0.1:{free_port()}") as service:
        assert httpx.get(f"{service.address}/readyz").json()["models"] == {"warns": 1}
        service.process.terminate()
        _, written = service.process.communicate(timeout=30)
    refused = [line["message"] for line in lines_of(written) if line["level"] == "error"]
    assert len(refused) == 2
    assert "indices element out of data bounds" in refused[0]
    assert "no?unicode" in refused[1]


def test_whoever_reads_the_log_may_stand_still_and_nobody_waits_for_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TALKS_ON],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as talks:
        assert talks.stdin
        assert talks.stdout
        assert talks.stdout.readline() == "goes on\n", "though nothing of it has been read"
        _, written = talks.communicate("\n", timeout=30)
    said = [json.loads(line)["message"] for line in written.splitlines()]
    assert said[0].startswith("line 0 of")
    assert any("lines were dropped: whoever reads this log is too slow" in line for line in said)
    assert said[-1] == "the last word"
