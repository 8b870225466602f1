"""Several processes train one model; what they agree on over loopback is what one process would do alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rankd_training.ranks import ALONE, Ranks
from tests.training.tables import write

pytestmark = pytest.mark.timeout(300)


def train(folder: Path, output: str, settings: list[str], processes: int) -> None:
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    told = ["--examples=examples.parquet", "--schema=schema.yaml", f"--output={output}"]
    command = [*launch, "-m", "rankd.cli", "train", *told, *(f"--set={setting}" for setting in settings)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", ["adam", "deferred_adam", "rowwise_adagrad"])
def test_two_processes_end_where_one_does(tmp_path: Path, optimiser: str) -> None:
    write(tmp_path)  # 800 training rows: the last batch of 150 has 50, and 75 is odd
    settings = ["epochs=1", "batch_size=150", "learning_rate=0.01", f"embedding_optimiser={optimiser}"]
    settings += ["embedding_decay=0.1", "model.dropout=0.0", "model.embedding_width=4"]
    for output, processes in (("alone", 1), ("together", 2)):
        train(tmp_path, output, settings, processes)
    alone, together = (load_file(tmp_path / o / "weights.safetensors") for o in ("alone", "together"))
    for name, weight in alone.items():
        torch.testing.assert_close(together[name], weight, rtol=0, atol=1e-5)
    assert not list(tmp_path.glob(".*"))


def test_shares_of_a_batch_are_all_of_it_and_differ_by_one_row_at_most() -> None:
    batch = torch.arange(11)
    shares = [Ranks(index, 4).share(batch) for index in range(4)]
    assert torch.equal(torch.cat(shares), batch)
    assert {len(share) for share in shares} == {2, 3}


def test_alone_nothing_is_sent() -> None:
    gradient = torch.ones(3)
    ALONE.add_up([gradient])
    ALONE.meet()
    assert torch.equal(gradient, torch.ones(3))
    assert ALONE.join(gradient) is gradient
    assert ALONE.same(gradient) is gradient
    assert torch.equal(ALONE.share(gradient), gradient)
