"""From one run to the next: `rankd train` says what to type next, and `rankd export` takes the newest."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest

from rankd.cli.runs import export_command, remember, run_or_newest
from rankd.cli.train import free_folder
from tests.rankd.test_cli import rankd
from tests.training.tables import examples_table, with_column, write


@pytest.mark.slow
def test_train_says_what_to_type_next_and_export_alone_takes_the_newest(tmp_path: Path) -> None:
    write(tmp_path, with_column(examples_table(), "item_id", [7] * 1200))
    files = "--examples", "examples.parquet", "--schema", "schema.yaml"
    first, second = (rankd("train", *files, "--model", "lr", "--epochs", "1", cwd=tmp_path) for _ in range(2))
    assert (first.stdout, second.stdout) == (".rankd/runs/lr\n", ".rankd/runs/lr-2\n"), first.stderr
    assert "column 'item_id': every training row has the same value" in second.stderr
    record = json.loads((tmp_path / ".rankd/runs/lr-2/run.json").read_bytes())
    assert "column 'item_id'" in record["warnings"][0]
    assert "\nnext: rankd export .rankd/runs/lr-2\n" in second.stderr
    alone = rankd("export", cwd=tmp_path)
    assert "the newest run, .rankd/runs/lr-2" in alone.stderr
    assert "lr version 1" in alone.stdout
    nearly = rankd("features", "import", "x.parquet", "--view", "user", "--model", "lrr", cwd=tmp_path)
    assert nearly.returncode == 2
    assert "--model lrr: unknown; did you mean 'lr'? published in .rankd/bundles: lr" in nearly.stderr


@pytest.mark.slow
def test_an_export_over_another_architecture_is_warned_of(tmp_path: Path) -> None:
    write(tmp_path)
    said: list[str] = []
    for model in ("lr", "fm", "fm"):
        files = "--examples", "examples.parquet", "--schema", "schema.yaml", "--output", f"run-{len(said)}"
        assert rankd("train", *files, "--model", model, "--epochs", "1", cwd=tmp_path).returncode == 0
        said.append(rankd("export", f"run-{len(said)}", "--name", "feed", cwd=tmp_path).stderr)
    warning = "the version of feed before this one was lr, this one is fm;"
    assert [warning in text and "answer with it from now on" in text for text in said] == [False, True, False]


def test_a_run_elsewhere_is_remembered_too_and_its_command_can_be_typed(tmp_path: Path) -> None:
    run, home = ended(tmp_path, "my run", 100), tmp_path / "my home"
    remember(home / "runs", run)
    assert run_or_newest(None, home).resolve() == run.resolve()
    assert shlex.split(export_command(run, home)) == ["rankd", "export", str(run), "--home", str(home)]
    assert export_command(Path(".rankd/runs/lr"), Path(".rankd")) == "rankd export .rankd/runs/lr"


def ended(runs: Path, name: str, at_s: int) -> Path:
    run = runs / name
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    os.utime(run / "run.json", (at_s, at_s))
    return run


def test_the_newest_run_is_the_one_remembered_else_the_one_that_ended_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    old, new = ended(runs, "b", 100), ended(runs, "a", 200)
    assert run_or_newest(None, tmp_path) == new
    remember(runs, old)
    assert run_or_newest(None, tmp_path) == old
    assert (runs / "latest").readlink() == Path("b")
    remember(runs, new)
    remember(runs, old)
    shutil.rmtree(old)
    assert run_or_newest(None, tmp_path) == new
    (tmp_path / "file").write_text("x")
    remember(tmp_path / "file", new)  # a finished run is never lost to a link
    assert "could not be set" in capsys.readouterr().err


def test_without_any_run_export_says_what_to_do(tmp_path: Path) -> None:
    done = rankd("export", cwd=tmp_path)
    assert done.returncode == 1
    assert "holds no run; train one with `rankd train`" in done.stderr


def test_a_run_that_was_killed_keeps_its_name_for_whoever_goes_on_with_it(tmp_path: Path) -> None:
    (tmp_path / "mlcc").mkdir()
    (tmp_path / ".mlcc-2.unfinished").mkdir()
    assert free_folder(tmp_path, "mlcc") == tmp_path / "mlcc-3"
