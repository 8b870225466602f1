"""Several processes train one model; what they agree on over loopback is what one process would do alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rankd_training.learning.ranks import ALONE, Ranks
from tests.training.learning.killing import kill_in_the_second_epoch
from tests.training.tables import write

pytestmark = pytest.mark.timeout(300)


def command(*told: str, processes: int) -> list[str]:
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*launch, "-m", "rankd.cli", "train", *told]


def fresh(output: str, settings: list[str]) -> list[str]:
    told = ["--examples=examples.parquet", "--schema=schema.yaml", f"--output={output}"]
    return [*told, *(f"--set={setting}" for setting in settings)]


def train(folder: Path, *told: str, processes: int) -> None:
    done = subprocess.run(
        command(*told, processes=processes), cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", ["adam", "deferred_adam", "rowwise_adagrad"])
def test_two_processes_end_where_one_does(tmp_path: Path, optimiser: str) -> None:
    write(tmp_path)  # 800 training rows: the last batch of 150 has 50, and 75 is odd
    settings = ["epochs=1", "batch_size=150", "learning_rate=0.01", f"embedding_optimiser={optimiser}"]
    settings += ["embedding_decay=0.1", "model.dropout=0.0", "model.embedding_width=4"]
    for output, processes in (("alone", 1), ("together", 2)):
        train(tmp_path, *fresh(output, settings), processes=processes)
    alone, together = (load_file(tmp_path / o / "weights.safetensors") for o in ("alone", "together"))
    for name, weight in alone.items():
        torch.testing.assert_close(together[name], weight, rtol=0, atol=1e-5)
    assert not [left for left in tmp_path.glob(".*") if left.name != ".rankd"], "nothing half done is left"


@pytest.mark.slow
def test_two_processes_search_and_then_train_with_what_they_found(tmp_path: Path) -> None:
    write(tmp_path)
    settings = ["epochs=1", "batch_size=150", "model.cross_rows=50", "model.hidden=[8]"]
    train(tmp_path, "--model=optinter", *fresh("together", settings), processes=2)
    for name in ("weights.safetensors", "pairs.yaml", "schema-with-crosses.yaml"):
        assert (tmp_path / "together" / name).is_file()
    assert (tmp_path / "together-search" / "weights.safetensors").is_file()


@pytest.mark.slow
def test_two_processes_that_were_killed_go_on_as_if_they_had_not_been(tmp_path: Path) -> None:
    write(tmp_path)
    settings = ["epochs=8", "batch_size=16", "checkpoint_steps=5", "embedding_optimiser=deferred_adam"]
    settings += ["model.embedding_width=4", "unknown_rates={user_id: 0.3}"]
    train(tmp_path, *fresh("whole", settings), processes=2)
    kill_in_the_second_epoch(tmp_path, command(*fresh("killed", settings), processes=2), "killed")
    assert not (tmp_path / "killed").exists()
    train(tmp_path, "--resume=killed", processes=2)
    whole, killed = (load_file(tmp_path / o / "weights.safetensors") for o in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_shares_of_a_batch_are_all_of_it_and_differ_by_one_row_at_most() -> None:
    batch = torch.arange(11)
    shares = [Ranks(index, 4).share(batch) for index in range(4)]
    assert torch.equal(torch.cat(shares), batch)
    assert {len(share) for share in shares} == {2, 3}
    assert Ranks(3, 4).largest(11) == 3


def test_alone_nothing_is_sent() -> None:
    gradient = torch.ones(3)
    ALONE.add_up([gradient])
    ALONE.meet()
    assert torch.equal(gradient, torch.ones(3))
    assert ALONE.join(gradient) is gradient
    assert ALONE.same(gradient) is gradient
    assert torch.equal(ALONE.share(gradient), gradient)
