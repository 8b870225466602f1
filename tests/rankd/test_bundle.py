"""`rankd bundle`: a bundle shown, verified as a service would, and compared with another."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rankd_export.exporter import Variant, export_run
from rankd_export.precision import Precision
from tests.rankd.test_cli import rankd
from tests.support.process import environment
from tests.support.tiny_run import invented_data, tiny_run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of one model, the second in fewer bits."""
    home = tmp_path_factory.mktemp("home")
    run = tiny_run(invented_data(home / "data"), home / "run", "fm")
    export_run(run, home / "bundles")
    variant = Variant(Precision.INT8_EMBEDDINGS, home / "data" / "examples.parquet", max_auc_loss=0.1)
    return export_run(run, home / "bundles", variant=variant).path.parent


def test_a_models_current_bundle_is_shown_in_words_and_as_json(model: Path) -> None:
    words = rankd("bundle", "show", str(model), cwd=model)
    assert words.returncode == 0, words.stderr
    assert "int8-embeddings" in words.stdout
    assert "in_row" in words.stdout
    tree = json.loads(rankd("bundle", "show", str(model / "1"), "--json", cwd=model).stdout)
    assert (tree["version"], tree["export"]["precision"]) == (1, "fp32")


def test_a_bundle_is_verified_as_a_service_would_and_an_altered_one_named(model: Path) -> None:
    good = rankd("bundle", "verify", str(model), cwd=model)
    assert "fm version 2: 6 files are those of the manifest" in good.stdout, good.stderr
    copy = model.parent / "altered"
    copy.mkdir()
    for file in (model / "1").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "card.md").write_text("a better model")
    bad = rankd("bundle", "verify", str(copy), cwd=model)
    assert bad.returncode == 1
    assert "card.md" in bad.stderr


def test_bundles_are_compared(model: Path) -> None:
    found = rankd("bundle", "diff", str(model / "1"), str(model / "2"), "--json", cwd=model)
    assert found.returncode == 3
    assert json.loads(found.stdout)["export.precision"] == ["fp32", "int8-embeddings"]
    same = rankd("bundle", "diff", str(model), str(model / "2"), cwd=model)
    assert (same.returncode, same.stdout) == (0, "no difference\n")


def test_a_path_that_is_no_bundle_is_answered_with_what_was_expected(tmp_path: Path) -> None:
    found = rankd("bundle", "show", "nowhere", cwd=tmp_path)
    assert found.returncode == 2
    assert "expected HOME/bundles/MODEL" in found.stderr


def test_the_card_says_what_the_model_is_made_of(model: Path) -> None:
    card = (model / "2" / "card.md").read_text()
    for word in ("# fm", "## Data", "AUC per user", "Lost to int8-embeddings", "model.factors"):
        assert word in card
    assert "Licence, if the rows are those of movielens-synthetic: Made by rankd" in card
    assert "What the paper" in card


def test_services_are_sent_back_to_a_version_and_never_to_one_that_is_not_there(model: Path) -> None:
    before = json.loads(rankd("bundle", "show", str(model), "--json", cwd=model).stdout)["version"]
    back = rankd("bundle", "use", str(model / "1"), cwd=model)
    assert "services answer with version 1 from now on" in back.stdout, back.stderr
    assert json.loads(rankd("bundle", "show", str(model), "--json", cwd=model).stdout)["version"] == 1
    absent = rankd("bundle", "use", str(model / "9"), cwd=model)
    assert absent.returncode == 2
    assert "expected HOME/bundles/MODEL/VERSION" in absent.stderr.replace("\n", " ")
    rankd("bundle", "use", str(model / str(before)), cwd=model)


@pytest.mark.slow
def test_a_graph_for_cuda_is_added_and_said_to_have_run_on_no_device(model: Path) -> None:
    home = model.parent.parent
    command = ("export", str(home / "run"), "--home", str(home), "--name", "both", "--cuda", "fp32")
    words = rankd(*command, "--cuda-buckets", "8,64", cwd=home)
    assert words.returncode == 0, words.stderr
    assert "for CUDA, fp32: every node has a kernel in onnxruntime" in words.stdout
    assert "8, 64 candidates a run; no device has run it here" in words.stdout
    tree = json.loads(rankd(*command, "--json", cwd=home).stdout)
    assert tree["cuda"]["buckets"] == [64, 256, 512, 1024, 2048]
    verified = rankd("bundle", "verify", str(home / "bundles" / "both"), cwd=home)
    assert "both version 2: 7 files are those of the manifest" in verified.stdout, verified.stderr


@pytest.mark.slow
def test_an_export_that_is_told_to_end_leaves_nothing_half_made(tmp_path: Path) -> None:
    run = tiny_run(invented_data(tmp_path / "data"), tmp_path / "run", "mlcc")
    command = [
        sys.executable,
        "-m",
        "rankd.cli",
        "export",
        str(run),
        "--repository",
        str(tmp_path / "bundles"),
    ]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    give_up = time.monotonic() + 60
    while not list((tmp_path / "bundles").glob(".graphs-*")):
        assert process.poll() is None
        assert time.monotonic() < give_up
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert [path.name for path in (tmp_path / "bundles").rglob("*")] == []
