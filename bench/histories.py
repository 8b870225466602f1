"""Do histories help? INFNet with and without them, DCNv2 with pooled ones. Writes docs/results/histories.*.

    python bench/histories.py

MovieLens-100k. The three contestants are searched over the same settings, two seeds each, on a file without
test rows; the setting with the best validation AUC is then trained with five seeds and scored on the test
part once. Controls, which show where the differences come from, borrow their model's settings and have two
seeds. Some half an hour on one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.progress import track

from bench.behaviours import DATA, Sources
from bench.histories_page import markdown
from rankd_training.measures.intervals import resampled_aucs, user_auc_difference
from rankd_training.measures.metrics import user_auc
from rankd_training.trials.comparison import holm, paired_t
from rankd_training.trials.provenance import made_by
from rankd_training.trials.trial import Trial, TrialResult
from rankd_training.trials.trial_store import TrialStore

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
SEARCH_SEEDS, SEEDS, CONTROL_SEEDS = (11, 12), (1, 2, 3, 4, 5), (1, 2)
MEASURES = ("auc", "user_auc", "moment_auc", "log_loss")
COMMON: Mapping[str, Any] = {
    "epochs": 12,
    "patience": 2,
    "stop_on": "auc",
    "batch_size": 2048,
    "average_decay": 0.98,
    "unknown_rates": {"user_id": 0.97},
}
MODEL: Mapping[str, Mapping[str, Any]] = {
    "infnet": {"embedding_width": 8, "dropout": 0.4, "embedding_std": 0.01},
    "dcnv2": {"cross_layers": 1, "hidden": [64, 32], "mix": [], "dropout": 0.5, "embedding_std": 0.003},
}


@dataclass(frozen=True)
class Contestant:
    """A model over one definition of history. A control borrows the settings of its model's contestant."""

    title: str
    model: str
    history: str
    control: bool = False


CONTESTANTS = (
    Contestant("infnet, liked and disliked", "infnet", "both"),
    Contestant("infnet, no history", "infnet", "none"),
    Contestant("dcnv2, liked and disliked pooled", "dcnv2", "both"),
    Contestant("infnet, liked", "infnet", "liked", control=True),
    Contestant("infnet, liked, dealt out anew", "infnet", "borrowed", control=True),
    Contestant("dcnv2, no history", "dcnv2", "none", control=True),
    Contestant("dcnv2, liked pooled", "dcnv2", "liked", control=True),
    Contestant("dcnv2, with stars pooled", "dcnv2", "stars", control=True),
)


def grid(model: str) -> list[dict[str, Any]]:
    """Settings to choose from: learning rate, and how strongly weights are drawn to zero."""
    return [
        {**COMMON, "learning_rate": rate, **decays, "model_config": MODEL[model]}
        for rate in (1e-3, 3e-3)
        for decays in (
            {"embedding_decay": 1.0, "weight_decay": 0.0},
            {"embedding_decay": 3.0, "weight_decay": 1.0},
        )
    ]


def main() -> None:
    """Search, then compare."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--work", type=Path, default=Path(".rankd/histories"), help="trials are kept here")
    options.add_argument("--out", type=Path, default=RESULTS)
    asked = options.parse_args()
    sources = Sources(asked.work)
    whole = {name: TrialStore(asked.work / "trials", of) for name, of in sources.whole.items()}
    blind = {name: TrialStore(asked.work / "trials", of) for name, of in sources.blind.items()}
    chosen = {one.title: search(one, blind[one.history]) for one in CONTESTANTS if not one.control}
    for one in CONTESTANTS:
        if one.control:
            lender = next(c for c in CONTESTANTS if c.model == one.model and c.history == "both")
            chosen[one.title] = {"settings": chosen[lender.title]["settings"], "borrowed": lender.title}
    runs = {
        one.title: [
            whole[one.history].run(Trial(one.model, chosen[one.title]["settings"], seed))
            for seed in track(CONTROL_SEEDS if one.control else SEEDS, description=one.title)
        ]
        for one in CONTESTANTS
    }
    judged = Judged(sources, runs)
    report = {
        "data": DATA,
        **made_by("python bench/histories.py", datetime.now(UTC).date().isoformat()),
        "settings_tried": len(grid("infnet")),
        "contestants": {title: {**chosen[title], **judged.summary(title)} for title in runs},
        "differences": judged.differences([one.title for one in CONTESTANTS if not one.control]),
    }
    (asked.out / "histories.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (asked.out / "histories.md").write_text(markdown(report), encoding="utf-8")


def search(one: Contestant, store: TrialStore) -> dict[str, Any]:
    """Return the best settings on validation rows, and how they all did there."""
    tried = []
    for settings in track(grid(one.model), description=f"search {one.title}"):
        results = [store.run(Trial(one.model, settings, seed)) for seed in SEARCH_SEEDS]
        tried.append((mean(result.mean("valid", "auc") for result in results), settings))
    best = max(tried, key=lambda pair: pair[0])
    return {"settings": best[1], "valid_auc": [score for score, _ in tried]}


class Judged:
    """All runs on the rows that they were not trained on."""

    def __init__(self, sources: Sources, runs: Mapping[str, list[TrialResult]]) -> None:
        self._examples = sources.whole["none"].load()
        self._moment_n, self._runs = sources.moment_n, runs

    def summary(self, title: str) -> dict[str, Any]:
        """Mean and deviation over seeds, by split, task and measure."""
        spread = {
            f"{split} {task} {measure}": {"mean": mean(values), "std": stdev(values)}
            for split in ("valid", "test")
            for task in self._tasks()
            for measure in MEASURES
            for values in [self._values(title, split, task, measure)]
        }
        return {
            "parameters": self._runs[title][0].parameters,
            "seeds": len(self._runs[title]),
            "metrics": spread,
        }

    def differences(self, titles: list[str]) -> list[dict[str, Any]]:
        """Test figures of the first minus each other's: over seeds, and over the test part's users."""
        first, *others = titles
        examples = self._examples
        rows = examples.rows["test"]
        user_N = examples.group_n[rows]
        entries: list[dict[str, Any]] = []
        for t, task in enumerate(self._tasks()):
            label_N = examples.label_nT[rows, t]
            scores = {title: [run.scores()["test"][:, t] for run in self._runs[title]] for title in titles}
            drawn = resampled_aucs(label_N, [*scores.values()], user_N)
            assert drawn is not None
            by_title = dict(zip(scores, drawn, strict=True))
            for other in others:
                within = user_auc_difference(label_N, scores[first], scores[other], user_N)
                entries.append(
                    {
                        "task": task,
                        "models": [first, other],
                        "seeds": {
                            measure: asdict(
                                paired_t(*(self._values(of, "test", task, measure) for of in (first, other)))
                            )
                            for measure in MEASURES[:3]
                        },
                        "auc": asdict(by_title[first].minus(by_title[other])),
                        "user_auc": asdict(within) if within else None,
                    }
                )
        for measure in MEASURES[:3]:
            for entry, p in zip(entries, holm([e["seeds"][measure]["p"] for e in entries]), strict=True):
                entry["seeds"][measure]["p_holm"] = p
        return entries

    def _tasks(self) -> list[str]:
        return [task.name for task in self._examples.schema.tasks]

    def _values(self, title: str, split: str, task: str, measure: str) -> list[float]:
        runs = self._runs[title]
        if measure != "moment_auc":
            return [getattr(run.metrics[split][task], measure) for run in runs]
        rows, t = self._examples.rows[split], self._tasks().index(task)
        label_N, moment_N = self._examples.label_nT[rows, t], self._moment_n[rows]
        return [user_auc(label_N, run.scores()[split][:, t], moment_N) or 0.0 for run in runs]


if __name__ == "__main__":
    main()
