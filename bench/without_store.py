"""What is an answer worth while the feature store is away?

    python bench/without_store.py --out docs/results            # two minutes
    python bench/without_store.py --data movielens-100k --models mlcc

Trains models and scores the test rows as the service would with rows of the user, of the items, or of both
gone: with the schema's defaults in every field of a lost row, and with the id looked up from the request all
the same, as the service does. Writes without-store.json and .md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from bench.serving import made_by
from rankd_contract.encoding import Block, Encoder
from rankd_contract.schema import Entity, FeatureSchema
from rankd_contract.signature import ROW, tensors
from rankd_training.data import catalog
from rankd_training.examples.examples import Examples, load_examples
from rankd_training.measures.metrics import Ranking
from rankd_training.presets import preset
from rankd_training.recipes.ctr import train
from rankd_training.runs.finished import Run, score
from rankd_training.settings import TrainSettings

WAYS = ("all rows there", "id looked up", "defaults alone")
LOST = {
    "the user's row": (Entity.USER,),
    "the items' rows": (Entity.ITEM,),
    "both": (Entity.USER, Entity.ITEM),
}

console = Console(width=120)


def main() -> None:
    """Train, score, print, and write the figures where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="movielens-synthetic")
    parser.add_argument("--models", default="mlcc,dcnv2", help="with commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None, help="folder for without-store.json and .md")
    options = parser.parse_args()
    rows = [row for name in options.models.split(",") for row in of_model(options.data, name, options.seeds)]
    report = {**made_by("without_store.py"), "data": options.data, "seeds": options.seeds, "rows": rows}
    console.print(page(report), markup=False)
    if options.out:
        (options.out / "without-store.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        (options.out / "without-store.md").write_text(page(report), encoding="utf-8")


def of_model(data: str, name: str, seeds: int) -> Iterator[dict[str, Any]]:
    """AUC of a model's test rows by what is lost and what is scored instead, mean over seeds."""
    folder, schema_file = catalog.get(data), catalog.describe(data).schema
    found: dict[tuple[str, str, str], list[float]] = {}
    for seed in range(1, seeds + 1):
        with tempfile.TemporaryDirectory() as place:
            told = TrainSettings(
                folder / "examples.parquet",
                schema_file,
                Path(place) / "run",
                name,
                seed=seed,
                **preset(data, name),
            )
            run = Run.load(train(told).folder)
        examples = load_examples(folder / "examples.parquet", run.schema)
        for lost, entities in LOST.items():
            for way in WAYS:
                aucs = judged(run, examples, entities, way)
                for task, auc in aucs.items():
                    found.setdefault((lost, task, way), []).append(auc)
    for lost in LOST:
        for task in (task.name for task in run.schema.tasks):
            means = {way: round(statistics.mean(found[lost, task, way]), 4) for way in WAYS}
            yield {"model": name, "lost": lost, "task": task, **means}


def judged(run: Run, examples: Examples, lost: tuple[Entity, ...], way: str) -> dict[str, float]:
    """AUC by task of the test rows with these entities' rows lost."""
    row_N = examples.rows["test"]
    blocks = {
        entity: Block(block.ids[row_N], block.values[row_N]) for entity, block in examples.blocks.items()
    }
    if way != WAYS[0]:
        for entity in lost:
            blocks[entity] = defaults(run.schema, entity, blocks[entity], with_id=way == WAYS[1])
    arrays = tensors(blocks, np.arange(len(row_N)))
    features = {name: torch.from_numpy(array) for name, array in arrays.items() if name != ROW}
    score_NT = score(run.model, features, len(row_N))
    label_NT = examples.label_nT[row_N]
    return {
        task.name: Ranking(label_NT[:, t], score_NT[:, t]).auc() or 0.0
        for t, task in enumerate(run.schema.tasks)
    }


def defaults(schema: FeatureSchema, entity: Entity, there: Block, *, with_id: bool) -> Block:
    """Default rows; the fields that read the view's key as they were, where the id is looked up."""
    encoder = Encoder(schema, entity)
    n = len(there.ids)
    block = Block(np.repeat(encoder.defaults.ids, n, axis=0), np.repeat(encoder.defaults.values, n, axis=0))
    for at in encoder.layout.fields:
        if with_id and schema.view(at.view).reads_key(at.field):
            block.ids[:, at.ids] = there.ids[:, at.ids]
    return block


def page(report: dict[str, Any]) -> str:
    """Write the page that a reader of the repository sees."""
    lines = [
        "# What an answer is worth while the store is away",
        "",
        f"`{report['command']}`, {report['date']}, {report['machine']}. {report['data']}, AUC of the test "
        f"rows, mean over {report['seeds']} seeds. A lost row is scored by the schema's defaults; the id "
        "comes with the request, and a field that reads it needs no row. It helps as far as users and items "
        "were trained on.",
        "",
        "| model | task | lost | " + " | ".join(WAYS) + " |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {row['model']} | {row['task']} | {row['lost']} | "
            + " | ".join(f"{row[way]:.4f}" for way in WAYS)
            + " |"
            for row in report["rows"]
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
