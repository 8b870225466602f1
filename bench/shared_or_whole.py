"""How far do runs over shared tables part from runs over whole ones, and is it more than rounding?

    python bench/shared_or_whole.py

Every model trains one epoch of seventeen steps with two processes, three times: over whole tables, over
shared ones, and over whole ones with a learning rate larger by one part in ten million, which shows what
rounding alone does. Prints the largest difference of a weight and of validation log loss. Needs
training/requirements-torchrec.txt; a minute or two.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from rankd_training.models.registry import names
from tests.training.learning.test_sharding import together
from tests.training.tables import write

SHARED = {"epochs": 1, "batch_size": 47, "embedding_optimiser": "deferred_adam", "seed": 7}
WAYS = {
    "whole": {"embedding_sharding": "none"},
    "nudged": {"embedding_sharding": "none", "learning_rate": 1e-3 * (1 + 1e-7)},
    "shared": {"embedding_sharding": "row_wise"},
}


def main() -> None:
    """Train and compare."""
    table = Table("model", "against whole", "weight", "validation log loss")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write(folder)
        cases = {
            f"{name}-{way}": {**SHARED, **told, "model": name}
            for name in names()
            for way, told in WAYS.items()
        }
        together(folder, cases, processes=2)
        for name in names():
            for way in ("nudged", "shared"):
                weight, loss = apart(folder / f"{name}-whole", folder / f"{name}-{way}")
                table.add_row(name, way, f"{weight:.1e}", f"{loss:.1e}")
    Console().print(table)


def apart(one: Path, other: Path) -> tuple[float, float]:
    """Largest absolute differences of two runs: of a weight, and of a task's validation log loss."""
    ours, theirs = (load_file(run / "weights.safetensors") for run in (one, other))
    weight = max((theirs[name].double() - ours[name].double()).abs().max().item() for name in ours)
    losses = [
        json.loads((run / "run.json").read_text())["epochs"][-1]["valid_log_loss"] for run in (one, other)
    ]
    return weight, max(abs(losses[1][task] - losses[0][task]) for task in losses[0])


if __name__ == "__main__":
    main()
