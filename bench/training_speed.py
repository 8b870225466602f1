"""How fast models train: 39 fields of ids, width 16, batch 4096, beside FuxiCTR's DCNv2 on the same rows.

One run, one thread each, one after the other (two of the large tables do not fit in memory together), ours
before and after. Prints and writes docs/results/training-speed.json and .md:

    python bench/training_speed.py --fuxictr /tmp/fuxictr/bin/python

FuxiCTR (Apache-2.0) is used as a program in an environment of its own, made with
`python -m venv /tmp/fuxictr` and `/tmp/fuxictr/bin/pip install 'torch>=2.11,<2.14' fuxictr`. Without it our
network under plain dense Adam stands in its place. Needs 12 GB of memory for 1,000,000 rows a field.

Legend: n rows, F fields, U different table rows in a batch.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from rankd_contract.encoding import Block
from rankd_contract.schema import Entity
from rankd_contract.schema_file import parse_schema
from rankd_training.examples.batches import Batches
from rankd_training.examples.examples import Examples
from rankd_training.learning.learner import Learner
from rankd_training.learning.losses import Loss
from rankd_training.learning.optimisers import Optimisers
from rankd_training.learning.ranks import ALONE
from rankd_training.learning.unknowns import UnknownValues
from rankd_training.models.registry import build
from rankd_training.runs.unfinished import Course
from rankd_training.settings import TrainSettings

REPOSITORY = Path(__file__).resolve().parent.parent
FIELDS, USER_FIELDS, WIDTH, BATCH = 39, 13, 16, 4096
CROSS_LAYERS, HIDDEN, RATE, SEED = 2, (128, 64), 2e-3, 7
TEST_ROWS = 10 * BATCH
SMALL = 20_000
TARGETS = {1_000_000: 10.0, 2_000: 1.5}
DCNV2 = {"cross_layers": CROSS_LAYERS, "hidden": HIDDEN, "mix": (), "dropout": 0.0, "embedding_std": 1e-4}
OURS: Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, Any]]] = {
    "dcnv2": ("dcnv2", DCNV2, {}),
    "dcnv2, bfloat16": ("dcnv2", DCNV2, {"precision": "bfloat16"}),
    "mlcc": ("mlcc", {"dropout": 0.0}, {}),
    "mlcc, bfloat16": ("mlcc", {"dropout": 0.0}, {"precision": "bfloat16"}),
    "mlcc, bfloat16, compiled": ("mlcc", {"dropout": 0.0}, {"precision": "bfloat16", "compile": True}),
    "dcnv2, plain dense Adam": ("dcnv2", DCNV2, {"embedding_optimiser": "adam"}),
}


def train_rows(rows: int) -> int:
    """Rows of the epoch: less where a step of the yardstick takes seconds."""
    return BATCH * (40 if rows <= SMALL else 16)


def write_rows(folder: Path, rows: int) -> None:
    """Write ids, few of them frequent, and clicks that depend on ids and on a pair of them."""
    rng = np.random.default_rng(SEED)
    cut = train_rows(rows)
    n = cut + TEST_ROWS
    ids_nF = (rng.random((n, FIELDS)) ** 3 * rows).astype(np.int32) + 2
    taste_nF = np.sin(ids_nF * (1.7 + np.arange(FIELDS)))  # some fixed number of each id
    common_nF = ids_nF < 2 + rows // 50  # ids that come often enough to be learned in one epoch
    signal_n = (taste_nF * common_nF).sum(1) + 2 * (taste_nF[:, 0] * taste_nF[:, 20]) * common_nF[:, 0]
    click_n = (rng.random(n) < 1 / (1 + np.exp(1 - signal_n))).astype(np.float32)
    for name, part in (("train", slice(0, cut)), ("test", slice(cut, n))):
        columns = {f"f{f}": ids_nF[part, f].astype(np.int64) for f in range(FIELDS)}
        np.savez(folder / f"{name}.npz", allow_pickle=False, label=click_n[part], **columns)


def read_examples(folder: Path, rows: int) -> Examples:
    """Read both files as examples of a schema with `rows` hash buckets a field."""

    def fields(side: str, count: int) -> list[dict[str, Any]]:
        return [
            {"name": f"{side}{k}", "kind": "categorical", "dtype": "int64", "hash": rows}
            for k in range(count)
        ]

    views = [
        {"name": "user", "entity": "user", "key": "u", "fields": fields("user", USER_FIELDS)},
        {"name": "item", "entity": "item", "key": "i", "fields": fields("item", FIELDS - USER_FIELDS)},
    ]
    tree = {"rankd_schema": 1, "name": "bench", "views": views, "tasks": [{"name": "click"}]}
    ids, labels = [], []
    for name in ("train", "test"):
        with np.load(folder / f"{name}.npz", allow_pickle=False) as columns:
            ids.append(np.stack([columns[f"f{f}"] for f in range(FIELDS)], axis=1).astype(np.int32))
            labels.append(columns["label"])
    ids_nF = np.concatenate(ids)
    nothing: NDArray[np.float32] = np.zeros((len(ids_nF), 0), np.float32)
    blocks = {
        Entity.USER: Block(np.ascontiguousarray(ids_nF[:, :USER_FIELDS]), nothing),
        Entity.ITEM: Block(np.ascontiguousarray(ids_nF[:, USER_FIELDS:]), nothing),
        Entity.CONTEXT: Block(np.zeros((len(ids_nF), 0), np.int32), nothing),
    }
    parts = {"train": np.arange(len(labels[0])), "test": np.arange(len(labels[0]), len(ids_nF))}
    label_nT = np.concatenate(labels)[:, None]
    return Examples(parse_schema(str(tree)), blocks, label_nT, np.zeros(len(ids_nF), np.int64), parts, "")


@dataclass
class Laps:
    """Milliseconds of processor time by part of a step."""

    taken_ms: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Time a part."""
        began = time.process_time()
        yield
        self.taken_ms.setdefault(part, []).append(1000 * (time.process_time() - began))

    def medians(self, per_step: int = 1) -> dict[str, float]:
        """Return the median of each part."""
        return {part: round(per_step * float(np.median(taken)), 2) for part, taken in self.taken_ms.items()}


class Clock:
    """Listens to the steps of an epoch and notes when each was done, and with how much work."""

    def __init__(self) -> None:
        self.at_s, self.busy_s = [time.perf_counter()], [time.process_time()]

    def rows_read(self, done: int, total: int) -> None:
        """Nothing to note."""

    def run_started(
        self, *, model: str, parameters: int, stop_on: str, epochs: int, steps_per_epoch: int
    ) -> None:
        """Nothing to note."""

    def epoch_started(self, epoch: int) -> None:
        """Nothing to note."""

    def step(self, step: int, loss: float, rows_per_s: float) -> None:
        """Note the time."""
        self.at_s.append(time.perf_counter())
        self.busy_s.append(time.process_time())

    def epoch_ended(
        self, epoch: int, loss: float, valid_auc: Mapping[str, float], *, score: float, best: bool
    ) -> None:
        """Nothing to note."""


def train_ours(folder: Path, rows: int, name: str, threads: int) -> dict[str, Any]:
    """Train one epoch and judge it; then time the parts of some more steps."""
    torch.set_num_threads(threads)
    model_name, config, given = OURS[name]
    examples = read_examples(folder, rows)
    settings = TrainSettings(
        folder, folder, folder, model=model_name, batch_size=BATCH, learning_rate=RATE, **given
    )
    torch.manual_seed(SEED)
    model = build(model_name, examples.schema, config)
    optimisers, batches = Optimisers(model, settings, ALONE), Batches(examples)
    loss_of, unknowns = Loss(settings, examples, model), UnknownValues(examples.schema, {})
    learner = Learner(model, optimisers, loss_of, unknowns, batches, settings, ALONE)
    order_n = torch.randperm(train_rows(rows))
    clock = Clock()
    learner.learn(order_n, Course("", ""), clock, lambda: None)
    epoch_s = clock.at_s[-1] - clock.at_s[0]
    step_ms = 1000 * np.diff(clock.at_s)
    optimisers.settle()
    score_n = learner.predict(examples.rows["test"])[:, 0].numpy()
    result = {
        "auc": float(roc_auc_score(examples.label_nT[examples.rows["test"], 0], score_n)),
        "step_ms": float(np.median(step_ms)),
        "busy_ms": 1000 * float(np.median(np.diff(clock.busy_s))),
        "epoch_s": epoch_s,
        "rows": len(order_n),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    if name == "dcnv2, bfloat16":
        result["parts_ms"] = parts_of_a_step(learner, order_n)
        result["rows_bound"] = rows_bound(learner, order_n[:BATCH])
    return result


def parts_of_a_step(learner: Learner, order_n: Tensor, steps: int = 8) -> dict[str, float]:
    """Where a step's time goes; finding and copying a batch's rows is part of `forward` and told apart."""
    laps, lookups, optimisers = Laps(), Laps(), learner.optimisers
    learner.model.train()

    def timed(read: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def call(rows: Tensor) -> Tensor:
            with lookups("find and copy rows"):
                return read(rows)

        return call

    if optimisers.tables:
        learner.model.embedding.train_through(timed(optimisers.tables[0]))
    for chosen_N in torch.split(order_n, BATCH)[:steps]:
        with laps("read batch"):
            batch = learner.batches.read(chosen_N)
        optimisers.zero_grad()
        with laps("forward"), torch.autocast("cpu", torch.bfloat16):
            logit_NT = learner.model(batch.features).float()
        loss = learner.loss_of(logit_NT, batch.label_NT, batch.group_N, 1)
        with laps("backward"):
            loss.backward()  # type: ignore[no-untyped-call]
        with laps("move rows and weights"):
            optimisers.step()
    parts = laps.medians()
    if lookups.taken_ms:
        parts |= lookups.medians(per_step=2)  # a side of the model each
        parts["forward"] = round(parts["forward"] - parts["find and copy rows"], 2)
    return parts


def rows_bound(learner: Learner, chosen_N: Tensor) -> dict[str, float]:
    """The least time that a batch's rows take: weights and two moments read and written once."""
    seen = torch.zeros(learner.model.embedding.table.num_embeddings, dtype=torch.bool)
    learner.model.embedding.mark_read(learner.batches.read(chosen_N).features, seen)
    different = int(seen.sum())
    from_a, to_b = torch.ones(1 << 26), torch.ones(1 << 26)
    taken_s = []
    for _ in range(5):
        began = time.process_time()
        to_b.copy_(from_a)
        taken_s.append(time.process_time() - began)
    bytes_per_s = 2 * from_a.nbytes / float(np.median(taken_s))
    moved = different * WIDTH * 4 * 3 * 2
    return {
        "different_rows": different,
        "bytes_moved": moved,
        "copy_gb_per_s": round(bytes_per_s / 1e9, 1),
        "bound_ms": round(1000 * moved / bytes_per_s, 2),
    }


def run_apart(arguments: list[str]) -> dict[str, Any]:
    """Run a contender in a process of its own and read its result."""
    done = subprocess.run(arguments, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    result["samples_per_s"] = round(BATCH / result["busy_ms"] * 1000)
    return result


def measure(rows: int, fuxictr: str | None, threads: int, say: Callable[[str], None]) -> dict[str, Any]:
    """All contenders on tables of `rows` rows a field."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_rows(folder, rows)

        def ours(name: str) -> dict[str, Any]:
            told = [sys.executable, __file__, "--worker", name, "--folder", place, "--rows", str(rows)]
            return run_apart([*told, "--threads", str(threads)])

        # Compiling pays where the same program runs again and again; rows that vary break it up.
        names = [name for name in OURS if "plain" not in name and not ("compiled" in name and rows > SMALL)]
        first = "dcnv2, bfloat16"
        order = [*names, "fuxictr" if fuxictr else "dcnv2, plain dense Adam", first]
        for name in order:
            if name == "fuxictr":
                settings = {
                    "fields": FIELDS, "rows": rows, "width": WIDTH, "batch": BATCH, "rate": RATE,
                    "seed": SEED, "cross": CROSS_LAYERS, "hidden": HIDDEN, "threads": threads,
                    "train_rows": train_rows(rows),
                }  # fmt: skip
                script = str(REPOSITORY / "bench" / "fuxictr_dcnv2.py")
                result = run_apart([str(fuxictr), script, place, json.dumps(settings)])
            else:
                result = ours(name)
            if name in found:  # before and after: the slower one counts
                say(f"{rows:>9} rows a field  {name} again: {result['samples_per_s']:,} samples/s")
                found[name]["busy_ms_after"] = result["busy_ms"]
                continue
            found[name] = result
            say(
                f"{rows:>9} rows a field  {name:26} {result['samples_per_s']:>7,} samples/s  "
                f"AUC {result['auc']:.4f}  peak {result['peak_gb']:.1f} GB"
            )
    yardstick = found[order[-2]]
    for name in names:
        mine = max(found[name]["busy_ms"], found[name].get("busy_ms_after", 0))
        found[name]["times_yardstick"] = round(yardstick["busy_ms"] / mine, 2)
    return found


def table(result: Mapping[str, Any]) -> str:
    """Put the results into words and tables."""
    lines = [
        "# Training speed",
        "",
        f"{FIELDS} fields of ids, width {WIDTH}, batch {BATCH}, one epoch, "
        f"{result['threads']} thread; `{result['command']}`. {result['machine']}.",
        "",
        "A step is FuxiCTR's `train_step`, or all of ours with reading the batch; FuxiCTR's own loader is "
        "left out of its step and told beside it. Samples per second are of processor time, since the "
        "machine is shared; ratios are of medians over one run; where one of ours was timed before and "
        "after, the slower counts.",
    ]
    for rows, found in result["by_rows"].items():
        target = TARGETS.get(int(rows))
        lines += ["", f"## {int(rows):,} rows a field, {train_rows(int(rows)):,} examples", ""]
        lines += ["| | samples/s | times the yardstick | test AUC | peak memory |", "|---|---|---|---|---|"]
        for name, one in found.items():
            ratio = f"{one['times_yardstick']:.1f}" if "times_yardstick" in one else "1 (yardstick)"
            cells = f"{one['samples_per_s']:,} | {ratio} | {one['auc']:.4f} | {one['peak_gb']:.1f} GB"
            lines.append(f"| {name} | {cells} |")
        if target:
            lines += ["", f"Target: {target:g} times, at equal AUC."]
        if "fuxictr" in found:
            whole, mine = found["fuxictr"], found["dcnv2, bfloat16"]
            lines += [
                "",
                f"By the wall clock a step of FuxiCTR {whole['version']} takes {whole['step_ms']:,.0f} ms "
                f"and its epoch with its own loader {whole['epoch_s']:.0f} s; ours in bfloat16 "
                f"{mine['step_ms']:,.0f} ms and {mine['epoch_s']:.0f} s.",
            ]
        deep = found["dcnv2, bfloat16"]
        parts = ", ".join(f"{part} {ms:g}" for part, ms in deep["parts_ms"].items())
        bound = deep["rows_bound"]
        spent = deep["parts_ms"].get("find and copy rows", 0) + deep["parts_ms"]["move rows and weights"]
        lines += [
            "",
            f"Where a step of DCNv2 in bfloat16 goes, ms: {parts}. Its batch reads "
            f"{bound['different_rows']:,} different rows; reading and writing them with their moments once, "
            f"{bound['bytes_moved'] / 1e6:.0f} MB, takes {bound['bound_ms']:g} ms at the "
            f"{bound['copy_gb_per_s']:g} GB/s of a plain copy in the same process: finding, copying and "
            f"moving rows takes {spent / bound['bound_ms']:.1f} times that.",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run everything, or one contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--fuxictr", help="Python of an environment with FuxiCTR")
    parser.add_argument("--rows", type=int, nargs="*", default=[2_000, 1_000_000], help="rows a field")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=REPOSITORY / "docs" / "results")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.worker:
        result = train_ours(told.folder, told.rows[0], told.worker, told.threads)
        sys.stdout.write("RESULT " + json.dumps(result) + "\n")
        return

    def say(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    by_rows = {str(rows): measure(rows, told.fuxictr, told.threads, say) for rows in told.rows}
    command = "python bench/training_speed.py" + (" --fuxictr PYTHON" if told.fuxictr else "")
    result = {
        "command": command,
        "machine": f"{platform.machine()}, torch {torch.__version__}, Python {platform.python_version()}",
        "threads": told.threads,
        "by_rows": by_rows,
    }
    (told.results / "training-speed.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (told.results / "training-speed.md").write_text(table(result), encoding="utf-8")


if __name__ == "__main__":
    main()
