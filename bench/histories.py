"""Do histories help? INFNet with and without them, DCNv2 with pooled ones. Writes docs/results/histories.*.

    python bench/histories.py

MovieLens-100k. Each contestant is searched over the same settings, two seeds each, on a file without test
rows; the setting with the best validation AUC within users is then trained with five seeds and scored on the
test part once. Some fifteen minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.progress import track

from rankd_training.data import catalog
from rankd_training.measures.intervals import resampled_aucs, user_auc_difference
from rankd_training.trials.comparison import holm, paired_t
from rankd_training.trials.provenance import made_by
from rankd_training.trials.trial import Source, Trial, TrialResult, TrialStore
from rankd_training.trials.withheld import without_test

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
DATA, MEASURES = "movielens-100k", ("auc", "user_auc", "log_loss")
SEARCH_SEEDS, SEEDS = (11, 12), (1, 2, 3, 4, 5)
SEQUENCE = re.compile(r"^ *- \{name: recent_liked,.*\n", re.MULTILINE)
COMMON: Mapping[str, Any] = {
    "epochs": 12,
    "patience": 3,
    "stop_on": "user_auc",
    "batch_size": 512,
    "unknown_rates": {"user_id": 0.97},
}


@dataclass(frozen=True)
class Contestant:
    """A model over the fields with the history or without it."""

    title: str
    model: str
    history: bool


CONTESTANTS = (
    Contestant("infnet, history", "infnet", history=True),
    Contestant("infnet, no history", "infnet", history=False),
    Contestant("dcnv2, history pooled", "dcnv2", history=True),
)


def grid(model: str) -> list[dict[str, Any]]:
    """Settings to choose from: learning rate, decay of embeddings, and how strongly the network is held."""
    own: list[dict[str, Any]]
    if model == "infnet":
        own = [
            {"embedding_width": 16, "dropout": 0.1, "embedding_std": 0.05},
            {"embedding_width": 8, "dropout": 0.4, "embedding_std": 0.01},
        ]
    else:
        small: dict[str, Any] = {"cross_layers": 1, "hidden": [64, 32], "mix": []}
        own = [
            {**small, "dropout": 0.1, "embedding_std": 0.05},
            {**small, "dropout": 0.5, "embedding_std": 0.003},
        ]
    return [
        {**COMMON, "learning_rate": rate, "embedding_decay": decay, "model_config": config}
        for rate in (5e-4, 2e-3)
        for decay in (0.1, 1.0)
        for config in own
    ]


def main() -> None:
    """Search, then compare."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--work", type=Path, default=Path(".rankd/histories"), help="trials are kept here")
    options.add_argument("--out", type=Path, default=RESULTS)
    asked = options.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    source = Source(catalog.get(DATA) / "examples.parquet", catalog.describe(DATA).schema)
    plain = asked.work / "no-history.yaml"
    text, found = SEQUENCE.subn("", source.schema.read_text(encoding="utf-8"))
    assert found == 1
    plain.write_text(text, encoding="utf-8")
    sources = {True: source, False: Source(source.examples, plain)}
    stores = {history: TrialStore(asked.work / "trials", of) for history, of in sources.items()}
    blind = {
        history: TrialStore(
            asked.work / "trials", without_test(of, asked.work / f"withheld-{history}.parquet")
        )
        for history, of in sources.items()
    }
    chosen = {one.title: search(one, blind[one.history]) for one in CONTESTANTS}
    runs = {
        one.title: [
            stores[one.history].run(Trial(one.model, chosen[one.title]["settings"], seed))
            for seed in track(SEEDS, description=one.title)
        ]
        for one in CONTESTANTS
    }
    report = {
        "data": DATA,
        **made_by("python bench/histories.py", datetime.now(UTC).date().isoformat()),
        "contestants": {title: summary(runs[title], chosen[title]) for title in runs},
        "differences": differences(source, runs),
    }
    (asked.out / "histories.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (asked.out / "histories.md").write_text(markdown(report), encoding="utf-8")


def search(one: Contestant, store: TrialStore) -> dict[str, Any]:
    """Return the best settings on validation rows, and how they all did there."""
    tried = []
    for settings in track(grid(one.model), description=f"search {one.title}"):
        results = [store.run(Trial(one.model, settings, seed)) for seed in SEARCH_SEEDS]
        tried.append((mean(result.mean("valid", "user_auc") for result in results), settings))
    best = max(tried, key=lambda pair: pair[0])
    return {"settings": best[1], "valid_user_auc": [score for score, _ in tried]}


def summary(runs: list[TrialResult], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Mean and deviation over seeds, by split, task and measure."""
    spread: dict[str, Any] = {}
    for split in ("valid", "test"):
        for task in runs[0].metrics[split]:
            for measure in MEASURES:
                values = [getattr(run.metrics[split][task], measure) for run in runs]
                spread[f"{split} {task} {measure}"] = {"mean": mean(values), "std": stdev(values)}
    return {**chosen, "parameters": runs[0].parameters, "metrics": spread}


def differences(source: Source, runs: Mapping[str, list[TrialResult]]) -> list[dict[str, Any]]:
    """Test figures of the first contestant minus each other's: over seeds, and over the test part's users."""
    examples = source.load()
    rows = examples.rows["test"]
    label_NT, user_N = examples.label_nT[rows], examples.group_n[rows]
    first, *others = runs
    score = {title: [run.scores()["test"] for run in of] for title, of in runs.items()}
    entries: list[dict[str, Any]] = []
    for t, task in enumerate(examples.schema.tasks):
        columns = {title: [score_NT[:, t] for score_NT in of] for title, of in score.items()}
        drawn = resampled_aucs(label_NT[:, t], [*columns.values()], user_N)
        assert drawn is not None
        by_title = dict(zip(columns, drawn, strict=True))
        for other in others:
            within = user_auc_difference(label_NT[:, t], columns[first], columns[other], user_N)
            seeds = {
                measure: asdict(
                    paired_t(*(_values(runs[title], task.name, measure) for title in (first, other)))
                )
                for measure in ("auc", "user_auc")
            }
            entries.append(
                {
                    "task": task.name,
                    "models": [first, other],
                    "seeds": seeds,
                    "auc": asdict(by_title[first].minus(by_title[other])),
                    "user_auc": asdict(within) if within else None,
                }
            )
    for measure in ("auc", "user_auc"):
        for entry, p in zip(entries, holm([e["seeds"][measure]["p"] for e in entries]), strict=True):
            entry["seeds"][measure]["p_holm"] = p
    return entries


def _values(runs: list[TrialResult], task: str, measure: str) -> list[float]:
    return [getattr(run.metrics["test"][task], measure) for run in runs]


def markdown(report: Mapping[str, Any]) -> str:
    """Write it for people."""
    machine = report["machine"]
    lines = [
        "# Do histories help?",
        "",
        f"`{report['command']}`, {report['date']}, {machine['cores']} cores of {machine['cpu']}.",
        "",
        f"{report['data']}, five seeds each. Each contestant: the best of {len(grid('infnet'))} settings by",
        "AUC within users on validation rows, two seeds a setting, on a file without test rows.",
        "",
        "| task | contestant | AUC | AUC within users | log loss | validation, within users |",
        "|---|---|---|---|---|---|",
    ]
    tasks = list(dict.fromkeys(entry["task"] for entry in report["differences"]))
    for task in tasks:
        for title, one in report["contestants"].items():
            cells = [
                "{mean:.4f} ± {std:.4f}".format(**one["metrics"][f"{split} {task} {measure}"])
                for split, measure in (*(("test", m) for m in MEASURES), ("valid", "user_auc"))
            ]
            lines.append(f"| {task} | {title} | {' | '.join(cells)} |")
    lines += [
        "",
        "Differences on test, the first minus the other: mean over seeds with the p-value of a paired t-test",
        "(Holm over all lines of a column), and the middle 95 % of paired resamples of the test users.",
        "",
        "| task | against | AUC | over users | AUC within users | over users |",
        "|---|---|---|---|---|---|",
    ]
    for entry in report["differences"]:
        cells = []
        for measure in ("auc", "user_auc"):
            seeds, rows = entry["seeds"][measure], entry[measure]
            p = "" if seeds["p_holm"] is None else f", p {seeds['p_holm']:.3f}"
            cells += [f"{seeds['mean']:+.4f}{p}", f"{rows['low']:+.4f} to {rows['high']:+.4f}"]
        lines.append(f"| {entry['task']} | {entry['models'][1]} | {' | '.join(cells)} |")
    lines += ["", "Settings chosen:", ""]
    for title, one in report["contestants"].items():
        lines.append(f"- {title} ({one['parameters']:,} parameters): `{json.dumps(one['settings'])}`")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
