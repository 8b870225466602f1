"""The measurement on a GPU runs in one command, and its path on any machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def ran(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    bare = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, REPOSITORY / "bench" / "gpu.py", *arguments],
        env=bare,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=pytest.mark.slow) for name in ("mlcc", "infnet", "armnet")]
)
def test_its_self_test_takes_the_whole_path_on_the_cpu(tmp_path: Path, model: str) -> None:
    out = ran("--self-test", "--models", model, "--out", tmp_path / "gpu.json")
    assert out.returncode == 0, out.stderr
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    ways = found["models"][model]["ways"]
    full = {
        "torch, eager",
        "torch, compiled",
        "torch, serving form compiled",
        "onnxruntime, portable graph",
        "onnxruntime, CUDA graph",
    }
    assert full <= set(ways)
    assert all(ways[way]["difference"] <= 1e-5 for way in full)
    assert 0 < ways["onnxruntime, CUDA graph, fp16"]["difference"] < 5e-3
    assert set(found["models"][model]["absent"]) == {"onnxruntime, CUDA graph, bf16"}  # no kernels on a CPU
    assert {"embedding_stage", "entmax_15", "gated_unit"} <= set(found["kernels"])
    assert "its figures mean nothing" in (tmp_path / "gpu.md").read_text(encoding="utf-8")


def test_without_a_device_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    out = ran("--out", tmp_path / "gpu.json")
    if out.returncode == 0:
        pytest.skip("there is a device")
    assert "no CUDA device here; --self-test" in out.stderr
    assert not list(tmp_path.iterdir())
