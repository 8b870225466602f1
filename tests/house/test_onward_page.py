"""docs/onward.md: its code runs on bundles made a moment ago, and gives the recorded scores."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rankd_export.exporter import export_run
from tests.support.bundles import every_input, publish_bundle
from tests.support.process import environment
from tests.support.tiny_run import invented_data, tiny_run

PAGE = (Path(__file__).parents[2] / "docs" / "onward.md").read_text(encoding="utf-8")
LOADING, ENCODING = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def run(code: str, folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_bundle_is_loaded_in_ten_lines_and_gives_its_recorded_scores(tmp_path: Path) -> None:
    run_folder = tiny_run(invented_data(tmp_path / "data"), tmp_path / "run", "fm")
    bundle = export_run(run_folder, tmp_path / ".rankd" / "bundles", name="films")
    lines = run(LOADING, tmp_path)
    with np.load(bundle.golden) as golden:
        assert len(lines) == len({name.partition("/")[0] for name in golden.files})
    assert max(float(line.rsplit(" ", 1)[1]) for line in lines) <= bundle.manifest.golden_tolerance
    assert len([line for line in LOADING.splitlines() if line and "import" not in line]) <= 10


def test_values_become_the_graphs_inputs(tmp_path: Path) -> None:
    publish_bundle(tmp_path / ".rankd" / "bundles", graph=every_input)
    *_, last = run(f"{LOADING}\n{ENCODING}\nprint(scores.shape, np.isfinite(scores).all())", tmp_path)
    assert last == "(2, 2) True"


@pytest.mark.parametrize("verb", re.findall(r"^\$ (rankd [a-z]+(?: triton)?)", PAGE, re.MULTILINE))
def test_the_verbs_of_the_page_exist(verb: str, tmp_path: Path) -> None:
    words = verb.split()
    helped = [sys.executable, "-m", "rankd.cli", *words[1:], "--help"]
    done = subprocess.run(
        helped, cwd=tmp_path, env=environment(COLUMNS="200"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for option in re.findall(rf"^\$ {verb} .*?(--[a-z-]+)", PAGE, re.MULTILINE):
        assert option in done.stdout
