"""What `rankd doctor` finds on machines that lack something."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import environment
from tests.support.server import free_port
from tests.support.valkey import Valkey


def doctor(*arguments: str, without: tuple[str, ...] = (), **changes: str) -> tuple[int, dict[str, Any]]:
    """Run it -> exit code, and the findings by name."""
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({without!r})); "
        f"sys.argv = ['rankd', 'doctor', '--json', *{arguments!r}]; from rankd.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr
    tree = json.loads(done.stdout)
    assert tree["ok"] is (done.returncode == 0)
    return done.returncode, {finding["name"]: finding for finding in tree["findings"]}


def test_a_machine_that_lacks_nothing_is_said_to_be_sound(tmp_path: Path) -> None:
    code, found = doctor("--home", str(tmp_path / "not" / "there" / "yet"))
    assert code == 0
    assert {"python", "runtime", "cores", "store", "disk, home", "clock", "settings"} <= found.keys()
    assert "graphs run on" in found["runtime"]["words"]
    assert found["store"]["state"] == "ok"
    assert not (tmp_path / "not").exists()


def test_what_is_broken_makes_the_exit_code_1_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    code, found = doctor(
        *("--home", str(tmp_path / "file"), "--redis-url", f"redis://:opensesame@127.0.0.1:{free_port()}"),
        RANKD_SERVER__PROT="1",
    )
    assert code == 1
    broken = {name for name, finding in found.items() if finding["state"] == "broken"}
    assert broken >= {"settings", "store", "disk, home"}
    assert found["settings"]["words"] == "server.prot: unknown key; did you mean 'port'?"
    assert "refused" in found["store"]["words"]
    assert "opensesame" not in json.dumps(found)
    assert all(found[name]["todo"] for name in broken)


def test_two_runtimes_that_overwrite_each_other_are_broken(tmp_path: Path) -> None:
    for name in ("onnxruntime", "onnxruntime_gpu"):
        record = tmp_path / f"{name}-9.9.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 9.9\n"
        )
    program = (
        "from rankd.cli import doctor; print([f.words for f in doctor._runtime() if f.state == 'broken'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(PYTHONPATH=f"{tmp_path}:{environment()['PYTHONPATH']}"),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "onnxruntime 9.9 and onnxruntime-gpu 9.9" in done.stdout


def test_absent_extras_are_notes_with_the_command_that_brings_them() -> None:
    code, found = doctor(without=("torch", "redis"))
    assert code == 0
    assert found["rankd[training]"]["words"] == "lacks torch"
    assert found["rankd[training]"]["todo"] == "pip install 'rankd[training]'"
    assert found["store"]["state"] == "note"


def test_a_runtime_that_does_not_load_is_broken() -> None:
    code, found = doctor(without=("onnxruntime",))
    assert code == 1
    assert "cannot be loaded" in found["runtime"]["words"]


@pytest.mark.redis
def test_a_store_that_answers_is_sound_and_its_clock_is_ours(tmp_path: Path) -> None:
    with Valkey(tmp_path) as server:
        code, found = doctor(REDIS_URL=server.url)
    assert code == 0
    assert found["store"]["words"].endswith("answers")
    assert found["clock"]["state"] == "ok"


def test_people_read_a_line_a_finding() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rankd.cli", "doctor"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "rankd[service]" in done.stdout
    assert all(line.split()[0] in {"ok", "note"} for line in done.stdout.splitlines() if line[0] != " ")
