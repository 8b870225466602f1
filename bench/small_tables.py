"""Do runs learn small tables with nothing set? Beside the settings of large ones, and trees.

    python bench/small_tables.py --out docs/results            # some six minutes

Tables of 400 to 20,000 training rows: two that scikit-learn brings, under the schemas that `rankd schema
infer` proposes, and parts of the invented films with their two tasks. Writes small-tables.json and .md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import track
from sklearn.datasets import load_breast_cancer, load_digits

from bench.serving import made_by
from rankd_training.data import catalog
from rankd_training.data.schema_proposal import Roles, propose_schema
from rankd_training.presets import preset
from rankd_training.trials.trial import Source, Trial
from rankd_training.trials.trial_store import TrialStore

NETWORKS, TREES = ("mlcc", "infnet", "dnn", "lr"), "lightgbm"
LARGE: Mapping[str, Any] = {
    "epochs": 10,
    "patience": 2,
    "batch_size": 1024,
    "stop_on": "auc",
    "embedding_decay": 0.0,
    "unknown_rates": {},
}
WAYS: Mapping[str, Mapping[str, Any]] = {"nothing set": {}, "as for large tables": LARGE}
INVENTED = "movielens-synthetic"
FILMS = (5_000, 25_000)
EIGHT = 8

console = Console(width=120)


def main() -> None:
    """Train, print, and write the figures where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None, help="folder for small-tables.json and .md")
    options = parser.parse_args()
    seeds = range(1, options.seeds + 1)
    with tempfile.TemporaryDirectory() as place:
        stores = [
            TrialStore(Path(place) / file.stem, Source(file, file.with_suffix(".yaml"), {}))
            for file in written(Path(place))
        ]
        works = [(store, model) for store in stores for model in (*NETWORKS, TREES)]
        rows = [row for work in track(works, "tables and models") for row in judged(*work, seeds)]
    report = {**made_by("small_tables.py"), "seeds": options.seeds, "rows": rows}
    console.print(page(report), markup=False)
    if options.out:
        (options.out / "small-tables.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        (options.out / "small-tables.md").write_text(page(report), encoding="utf-8")


def written(folder: Path) -> Iterator[Path]:
    """Write the tables, each with its schema beside it -> their files."""
    cancer, digits = load_breast_cancer(), load_digits()
    names = [name.replace(" ", "_") for name in cancer.feature_names]
    tumours = {name: cancer.data[:, i] for i, name in enumerate(names)} | {"label": cancer.target}
    pixels = {f"p{i}": digits.data[:, i].astype(np.int64) for i in range(digits.data.shape[1])}
    eights = {**pixels, "label": (digits.target == EIGHT).astype(np.int64)}
    for name, table in {"breast-cancer": pa.table(tumours), "digits-8": pa.table(eights)}.items():
        file = folder / f"{name}.parquet"
        pq.write_table(table, file)
        schema = propose_schema(file, Roles(labels=("label",)), name=name).text
        file.with_suffix(".yaml").write_text(schema, encoding="utf-8")
        yield file
    films = pq.read_table(catalog.get(INVENTED) / "examples.parquet").drop_columns(["split"])
    order_n = np.random.default_rng(0).permutation(films.num_rows)
    for num_rows in FILMS:
        file = folder / f"films-{num_rows}.parquet"
        pq.write_table(films.take(np.sort(order_n[:num_rows])), file)
        shutil.copy(catalog.describe(INVENTED).schema, file.with_suffix(".yaml"))
        yield file


def judged(store: TrialStore, model: str, seeds: range) -> Iterator[dict[str, Any]]:
    """Test AUC and log loss of a model by the way that it is set, means over seeds."""
    for way, given in {"nothing set": {}}.items() if model == TREES else WAYS.items():
        settings = {**preset(None, model), **given}
        results = [store.run(Trial(model, settings, seed)) for seed in seeds]
        found = [metrics for result in results for metrics in result.metrics["test"].values()]
        yield {
            "table": store.source.examples.stem,
            "model": model,
            "way": way,
            "auc": round(statistics.mean(one.auc or 0.0 for one in found), 4),
            "log_loss": round(statistics.mean(one.log_loss for one in found), 4),
        }


def page(report: Mapping[str, Any]) -> str:
    """The figures in words and a table."""
    made = f"`{report['command']}`, {report['date']}, {report['machine']}"
    lines = [
        "# Small tables, with nothing set",
        "",
        f"{made}. Rows split 80/10/10 by their number; means over {report['seeds']} seeds (and both tasks of "
        "the films) on the tenth that is for the test.",
        "",
        "Runs are sized by the rows (`recipes/sized.py`): smaller batches, more epochs and patience,",
        "embeddings that lose a tenth an epoch, rare ids hidden at times. Beside it what large tables have:",
        "10 epochs at most in batches of 1,024, patience 2 by AUC, nothing lost or hidden. LightGBM is as in",
        "`rankd compare`.",
        "",
        f"| table | model | {' | '.join(f'{what}, {way}' for what in ('AUC', 'log loss') for way in WAYS)} |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    by_row: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for row in report["rows"]:
        by_row.setdefault((row["table"], row["model"]), {})[row["way"]] = row
    for (table, model), ways in by_row.items():
        cells = [
            f"{ways[way][what]:.4f}" if way in ways else "" for what in ("auc", "log_loss") for way in WAYS
        ]
        lines.append(f"| {table} | {model} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
