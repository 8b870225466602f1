"""What the command line says at the first wrong step."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from rankd.cli import app
from rankd.cli.names import ARCHITECTURES
from rankd_contract.schema_file import load_schema
from rankd_training.models import registry
from tests.support.bundles import SCHEMA_TEXT


def rankd(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rankd.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, check=False)


def test_help_names_every_verb() -> None:
    result = rankd("--help")
    assert result.returncode == 0
    verbs = ("demo", "train", "evaluate", "report", "explain", "compare", "tune", "scaling")
    for verb in (*verbs, "export", "features", "serve", "rank", "data", "schema"):
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
        (("data", "get", "diabetes130", "--root", "nowhere"), 1, "encoded.parquet into nowhere/diabetes130"),
        (("data", "convert", "crito", "train.txt", "-o", "out"), 1, "known: criteo"),
        (("data", "convert", "criteo", "train.txt", "-o", "out"), 1, "train.txt does not exist"),
        (("data", "generate", "-o", "out", "--cardinality", "7"), 1, "an even number"),
        (("schema", "infer", "absent.parquet"), 1, "absent.parquet"),
        (("train", "--model", "mlcc"), 2, "--data"),
        (("train", "--examples", "rows.parquet"), 2, "rankd schema infer"),
        (("train", "--data", "movielens-synthetic", "--model", "no-such-model"), 2, "mlcc"),
        (("train", "--data", "movielens-synthetic", "--model", "mlc"), 2, "did you mean 'mlcc'?"),
        (("train", "--data", "movielens-synthetic", "--model", "gbdt"), 2, "`rankd compare --models gbdt"),
        (("train", "--data", "movielens-synthetic", "--set", "heads=2"), 2, "did you mean 'model.heads'?"),
        (("train", "--data", "movielens-synthetic", "--set", "model.hidden=6,4"), 2, "as [64, 32]"),
        (("demo", "--port", "0", "--model", "arm-net"), 2, "did you mean 'armnet'?"),
        (("train", "--data", "movielens-synthetic", "--set", "learning_rat=1"), 2, "learning_rate"),
        (("train", "--data", "movielens-synthetic", "--set", "model.head=2"), 2, "heads"),
        (("train", "--resume", "run", "--epochs", "3"), 2, "give it alone"),
        (("train", "--resume", "no-such-run"), 1, "no run to there was begun"),
        (("train", "--data", "movielens-synthetic", "--set", "seed=" + "[" * 5000), 2, "not valid YAML"),
        (("export", "run", "--fusion", "liked"), 2, "liked=1"),
        (("export", "run", "--cuda", "fp8"), 2, "expected one of fp32, fp16, bf16"),
        (("export", "run", "--cuda", "fp16"), 2, "needs --examples"),
        (("export", "run", "--cuda", "fp32", "--cuda-buckets", "512,64"), 2, "ascending"),
        (("export", "run", "--cuda-buckets", "64"), 2, "needs --cuda"),
        (("evaluate", "no-such-run", "--examples", "x.parquet"), 1, "no-such-run: does not exist; name the"),
        (
            ("bench", "--body", "no.json"),
            2,
            'no.json does not exist; write one like {"user": "1", "item_ids"',
        ),
        (("rank", "--user", "1", "--items", "2", "--context", "hour"), 2, "such as hour=7"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else str(value),
)
def test_a_wrong_step_names_what_to_do_next(
    arguments: tuple[str, ...], code: int, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, list(arguments))  # in this process, which has imported torch once
    assert result.exit_code == code, result.stderr
    assert hint in result.stderr
    assert isinstance(result.exception, SystemExit), result.exception


def test_a_wrong_step_is_no_traceback(tmp_path: Path) -> None:
    """As a person types it, in a process of its own."""
    result = rankd("export", "no-such-run", cwd=tmp_path)
    assert result.returncode == 1
    assert "rankd train" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_version_is_said() -> None:
    assert re.fullmatch(r"rankd \d+\.\d+\.\S+\n", rankd("--version").stdout)


def test_help_names_every_model_without_importing_torch() -> None:
    assert list(ARCHITECTURES) == registry.names()
    for verb in ("train", "demo"):
        program = (
            f"import sys; sys.modules['torch'] = None; sys.argv = ['rankd', '{verb}', '--help']; "
            "from rankd.cli import main; main()"
        )
        result = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
        )
        assert result.returncode == 0, result.stderr
        words = set(re.findall(r"\w+", result.stdout))
        assert words >= set(ARCHITECTURES)


def test_an_error_leaves_no_empty_line_of_a_bar_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("no rows")
    (tmp_path / "schema.yaml").write_text(SCHEMA_TEXT)
    arguments = ("import", "x.parquet", "--view", "user", "--schema", "schema.yaml")
    result = rankd("features", *arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("error: x.parquet: cannot be read as a Parquet file")
    assert "\n\n" not in result.stderr


def test_a_taken_port_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = rankd("demo", "--port", str(taken.getsockname()[1]), cwd=tmp_path)
    assert result.returncode == 2
    assert "--port" in result.stderr
    assert "train" not in result.stderr


def test_ray_is_asked_for_where_it_is_not_installed(tmp_path: Path) -> None:
    for name in ("e.parquet", "s.yaml"):
        (tmp_path / name).touch()
    program = (
        "import sys; sys.modules['ray'] = None; "
        "sys.argv = ['rankd', 'train', '--examples', 'e.parquet', '--schema', 's.yaml', '--ray', '2']; "
        "from rankd.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
    )
    assert result.returncode == 1
    assert "pip install -r training/requirements-ray.txt" in result.stderr


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


_GENERATE = ("data", "generate", "-o", "made", "--rows", "3000", "--fields", "4", "--cardinality", "10")


def test_rows_alone_become_a_model_in_three_commands(tmp_path: Path) -> None:
    made = rankd(*_GENERATE, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    rows = pq.read_table(tmp_path / "made" / "examples.parquet").drop_columns(["split", "true_label"])
    pq.write_table(rows, tmp_path / "rows.parquet")
    proposed = rankd("schema", "infer", "rows.parquet", "-o", "schema.yaml", cwd=tmp_path)
    assert proposed.returncode == 0, proposed.stderr
    assert "label label" in proposed.stderr
    assert "rankd train --examples rows.parquet --schema schema.yaml" in proposed.stderr
    arguments = ("--examples", "rows.parquet", "--schema", "schema.yaml", "--split", "60/20/20", "--json")
    trained = rankd("train", "--model", "lr", "--epochs", "1", *arguments, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "rows split by 60/20/20 by a hash of the row's number, seed 0" in trained.stderr
    run = tmp_path / json.loads(trained.stdout)["run"]
    record = json.loads((run / "run.json").read_text())
    assert record["split_by"].startswith("60/20/20 by a hash")
    assert record["rows"]["test"] == pytest.approx(600, abs=80)


def test_a_folder_that_cannot_be_made_is_said_in_a_line(tmp_path: Path) -> None:
    assert rankd(*_GENERATE, cwd=tmp_path).returncode == 0
    (tmp_path / "file").write_text("no folder")
    found = rankd("train", "--examples", "made", "--model", "lr", "--output", "file/run", cwd=tmp_path)
    assert found.returncode == 1
    assert found.stderr.startswith("error: file/")
    assert "Traceback" not in found.stderr


def test_a_folder_with_its_schema_needs_no_other_word(tmp_path: Path) -> None:
    made = rankd(*_GENERATE, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    trained = rankd("train", "--examples", "made", "--model", "lr", "--epochs", "1", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "rows split by column 'split'" in trained.stderr


@pytest.mark.slow
def test_optinter_leaves_a_schema_whose_crosses_any_model_trains_on(tmp_path: Path) -> None:
    made = rankd(*_GENERATE, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    # So cold at once that chance decides for sure, one way or another.
    settings = ("model.hidden=[8]", "model.cooling=1", "batch_size=64", "learning_rate=0.02")
    arguments = ("--examples", "made", "--epochs", "1", *(f"--set={setting}" for setting in settings))
    searched = rankd("train", "--model", "optinter", *arguments, cwd=tmp_path)
    assert searched.returncode == 0, searched.stderr
    runs = Path(".rankd") / "runs"
    assert f"first the search, in {runs / 'optinter-search'}" in searched.stderr
    assert re.search(r"what it chose: \d pairs memorised", searched.stderr)
    assert f"what each pair of fields is for: {runs / 'optinter' / 'pairs.yaml'}" in searched.stderr
    schema = runs / "optinter" / "schema-with-crosses.yaml"
    crosses = load_schema(tmp_path / schema).crosses
    assert crosses
    assert f"any model trains on --schema {schema}" in searched.stderr
    rest = ("--examples", "made", "--schema", str(schema), "--epochs", "1", "--json")
    trained = rankd("train", "--model", "lr", *rest, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    record = json.loads((tmp_path / json.loads(trained.stdout)["run"] / "run.json").read_text())
    assert record["parameters"] == 1 + 4 * 12 + len(crosses) * 102, "a weight a value and combination"


@pytest.mark.slow
def test_methods_that_are_given_need_no_search_and_a_search_is_not_for_ray(tmp_path: Path) -> None:
    made = rankd(*_GENERATE, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    arguments = ("train", "--model", "optinter", "--examples", "made", "--epochs", "1")
    trained = rankd(*arguments, "--set", "model.methods=['f1*f2=memorise']", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "search" not in trained.stderr
    refused = rankd(*arguments, "--ray", "2", cwd=tmp_path)
    assert (refused.returncode, "search without --ray" in refused.stderr) == (2, True), refused.stderr
