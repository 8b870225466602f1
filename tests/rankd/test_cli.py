"""What the command line says at the first wrong step."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest


def rankd(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rankd.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, check=False)


def test_help_names_every_verb() -> None:
    result = rankd("--help")
    assert result.returncode == 0
    verbs = ("demo", "train", "evaluate", "report", "explain", "compare", "tune", "scaling")
    for verb in (*verbs, "export", "features", "serve", "rank", "data"):
        assert verb in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (("rank", "--user", "1"), 2, "--items"),
        (("features", "import", "x.parquet", "--view", "user"), 2, "--model"),
        (("features", "get", "user", "1", "--model", "nope"), 1, "rankd export"),
        (("export", "no-such-run"), 1, "rankd train"),
        (("features", "import", "x.parquet", "--view", "user", "--model", "nope"), 1, "rankd export"),
        (("data", "get", "no-such-data"), 1, "movielens-100k"),
        (("train", "--model", "mlcc"), 2, "--data"),
        (("train", "--data", "movielens-synthetic", "--model", "no-such-model"), 2, "mlcc"),
        (("train", "--data", "movielens-synthetic", "--set", "learning_rat=1"), 1, "learning_rate"),
        (("train", "--data", "movielens-synthetic", "--set", "model.head=2"), 1, "heads"),
        (("export", "run", "--fusion", "liked"), 2, "liked=1"),
        (("evaluate", "no-such-run", "--examples", "x.parquet"), 1, "rankd train"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_a_wrong_step_names_what_to_do_next(
    arguments: tuple[str, ...], code: int, hint: str, tmp_path: Path
) -> None:
    result = rankd(*arguments, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert hint in result.stderr
    assert "Traceback" not in result.stderr


def test_a_taken_port_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = rankd("demo", "--port", str(taken.getsockname()[1]), cwd=tmp_path)
    assert result.returncode == 2
    assert "--port" in result.stderr
    assert "train" not in result.stderr


def test_a_missing_extra_is_said_with_the_command_that_brings_it(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['rankd', 'export', 'run']; "
        "from rankd.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
    )
    assert result.returncode == 1
    assert "pip install 'rankd[training]'" in result.stderr
    assert "Traceback" not in result.stderr
