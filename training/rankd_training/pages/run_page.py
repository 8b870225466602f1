"""The report of one run: how it learned, how good it is and where, and what it leans on.

One HTML file with nothing outside itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rankd_training.examples.inputs import RowInputs, sampled_rows
from rankd_training.explanation.importance import FieldImportance, permutation_importance
from rankd_training.measures import curves
from rankd_training.measures.intervals import in_words
from rankd_training.models.armnet import ARMNet
from rankd_training.models.armnet_reading import field_importance
from rankd_training.pages import charts
from rankd_training.pages.page import facts, figure, page, section, table, tiles, warnings
from rankd_training.runs.evaluation import ACTIVITY, Evaluation, SliceMetrics
from rankd_training.runs.subject import Subject

__all__ = ["MEASURES", "measure_importance", "run_page"]

MEASURES = {
    "auc": "AUC",
    "user_auc": "AUC per user",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
}
IMPORTANCE_ROWS = 5_000
MOST_FIELDS = 30


def measure_importance(
    subject: Subject, *, shuffles: int = 5, seed: int = 0, progress: Callable[[str], None] = lambda _: None
) -> list[FieldImportance]:
    """Permutation importance of every field on at most 5,000 of the subject's rows."""
    row_N = sampled_rows(subject.row_N, IMPORTANCE_ROWS, seed)
    return permutation_importance(
        subject.run.model,
        RowInputs.of(subject.examples, row_N),
        subject.examples.label_nT[row_N],
        shuffles=shuffles,
        seed=seed,
        progress=progress,
    )


def run_page(subject: Subject, evaluation: Evaluation, importance: Sequence[FieldImportance]) -> str:
    """Write the report.

    Args:
        subject: the run and the rows it is judged on.
        evaluation: from `evaluate_run` on the same subject.
        importance: from `measure_importance` on the same subject.
    """
    record = subject.run.record
    lead = (
        f"{subject.run.schema.name} · {evaluation.split} split, {evaluation.rows:,} rows{evaluation.whose} · "
        f"trained {record['ended_at'][:10]}, seed {record['seed']}"
        + (" · scores are calibrated, as served" if subject.calibrated else "")
        + ("" if subject.provenance is None else f" · {subject.provenance}")
    )
    body = [
        *([warnings(record["warnings"])] if record["warnings"] else []),
        tiles(_headline(evaluation)),
        _metrics(evaluation),
        _learning(record),
        _scores(subject),
        *_slices(evaluation),
        _importance(subject, importance),
        _making(subject),
    ]
    return page(f"Training report: {record['model']}", lead, body)


def _headline(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    shown = []
    for task, metrics in evaluation.metrics.items():
        for measure in ("auc", "log_loss"):
            value, interval = in_words(metrics[measure])
            shown.append((f"{MEASURES[measure]}, {task}", value, interval))
    return shown[:6]


def _metrics(evaluation: Evaluation) -> str:
    # Without users there is nobody to rank for.
    shown = [m for m in MEASURES if m != "user_auc" or evaluation.ranks_for_users]
    rows = [
        [task, *_rates(evaluation, task), *("\t".join(in_words(metrics[measure])) for measure in shown)]
        for task, metrics in evaluation.metrics.items()
    ]
    note = (
        "With 95 % intervals from drawing users (rows, where there are none) anew. AUC: higher is better, "
        "0.5 is chance. Log loss and calibration error: lower is better."
    )
    head = ["task", "positives", "mean score", *(MEASURES[m] for m in shown)]
    return section("Metrics", note=note) + table(head, rows)


def _rates(evaluation: Evaluation, task: str) -> tuple[str, str]:
    found = evaluation.facts[task]
    return f"{found.positives:,}\t{found.positives / evaluation.rows:.3g}", f"{found.mean_score:.3g}"


def _learning(record: Any) -> str:
    epochs = record["epochs"]
    x = [epoch["epoch"] for epoch in epochs]
    best = record["best_epoch"]
    ticks = sorted({round(v) for v in np.linspace(1, len(x), min(len(x), 10))})
    tasks = list(epochs[0]["valid_auc"])
    loss = charts.Line("training loss", x, [epoch["loss"] for epoch in epochs], marks=True)
    aucs = [
        charts.Line(task, x, [epoch["valid_auc"][task] for epoch in epochs], hue=k, marks=True)
        for k, task in enumerate(tasks)
    ]
    span = (0.5, len(x) + 0.5)
    loss_axes = charts.Axes("epoch", "loss", x_range=span, x_ticks=ticks, mark_x=best)
    auc_axes = charts.Axes("epoch", "AUC", x_range=span, x_ticks=ticks, mark_x=best)
    return section(
        "Learning",
        [
            figure("Training loss", charts.line_chart([loss], loss_axes, title="training loss by epoch")),
            figure(
                "AUC on validation",
                charts.line_chart(aucs, auc_axes, title="validation AUC by epoch"),
                legend=[(task, k) for k, task in enumerate(tasks)],
            ),
        ],
        note=f"The dashed line is epoch {best}, the best by mean validation AUC, whose weights were kept.",
    )


def _scores(subject: Subject) -> str:
    tasks = [task.name for task in subject.run.schema.tasks]
    legend = [(task, k) for k, task in enumerate(tasks)]
    rocs, calibrations = [], []
    for k, task in enumerate(tasks):
        label_N, score_N = subject.label_NT[:, k], subject.score_NT[:, k]
        curve = curves.roc(label_N, score_N)
        if curve:
            rocs.append(charts.Line(task, curve[0].tolist(), curve[1].tolist(), hue=k))
        kept = curves.calibration(label_N, score_N)
        low, high = kept.low_G.tolist(), kept.high_G.tolist()
        points = kept.score_G.tolist(), kept.rate_G.tolist()
        calibrations += [
            charts.Line(task, *points, hue=k, low=low, high=high, marks=True, joined=False),
            charts.Line(task, *points, hue=k, dashed=True),
        ]
    figures = []
    if rocs:
        axes = charts.Axes("false positive rate", "true positive rate", (0, 1), (0, 1), diagonal=True)
        drawing = charts.line_chart(rocs, axes, title="ROC curve")
        figures.append(figure("ROC", drawing, legend=legend, note="The dashed diagonal is chance."))
    axes = charts.Axes("mean score", "observed rate", diagonal=True)
    drawing = charts.line_chart(calibrations, axes, title="calibration curve")
    note = f"Each point has 1/{curves.NUM_BINS} of the rows; on the diagonal, scores are probabilities."
    figures.append(figure("Calibration", drawing, legend=legend, note=note))
    for k, task in enumerate(tasks):
        edges, negative, positive = curves.densities(subject.label_NT[:, k], subject.score_NT[:, k])
        series = [
            charts.Distribution("0", edges.tolist(), negative.tolist(), hue=7),
            charts.Distribution("1", edges.tolist(), positive.tolist(), hue=1),
        ]
        drawing = charts.distribution_chart(series, title=f"scores of {task}", x_label="score")
        legend = [("label 0", 7), ("label 1", 1)]
        figures.append(figure(f"Scores of {task}", drawing, legend=legend))
    return section("Scores", figures)


def _slices(evaluation: Evaluation) -> list[str]:
    sections = []
    for title, by_task in evaluation.slices.items():
        tasks = list(by_task)
        pieces = by_task[tasks[0]]
        series = [_dots(task, by_task[task], hue=k) for k, task in enumerate(tasks)]
        drawing = charts.dot_chart(
            [f"{piece.title} ({piece.rows:,})" for piece in pieces],
            series,
            title=f"AUC by {title}",
            x_label="AUC",
            reference=0.5,
        )
        note = "In brackets the number of rows. The dashed line is chance. Whiskers: 95 % over users."
        figures = [
            figure(f"AUC by {title}", drawing, legend=[(t, k) for k, t in enumerate(tasks)], note=note)
        ]
        figures += [_observed(title, task, by_task[task]) for task in tasks]
        heading = "Where it is better and worse" if title == ACTIVITY else f"By {title}"
        sections.append(section(heading, figures))
    return sections


def _dots(task: str, pieces: Sequence[SliceMetrics], hue: int) -> charts.Dots:
    aucs = [piece.auc for piece in pieces]
    return charts.Dots(
        task,
        [auc.value if auc else None for auc in aucs],
        [auc.low if auc else None for auc in aucs],
        [auc.high if auc else None for auc in aucs],
        hue,
    )


def _observed(title: str, task: str, pieces: Sequence[SliceMetrics]) -> str:
    nothing = [None] * len(pieces)
    series = [
        charts.Dots("mean score", [piece.mean_score for piece in pieces], nothing, nothing, 0),
        charts.Dots("observed rate", [piece.base_rate for piece in pieces], nothing, nothing, 1),
    ]
    drawing = charts.dot_chart(
        [piece.title for piece in pieces], series, title=f"score and rate by {title}", x_label="probability"
    )
    return figure(f"Promised and observed, {task}", drawing, legend=[("mean score", 0), ("observed rate", 1)])


def _importance(subject: Subject, importance: Sequence[FieldImportance]) -> str:
    shown = importance[:MOST_FIELDS]
    labels = [one.field for one in shown]
    tasks = [task.name for task in subject.run.schema.tasks]
    figures = []
    for heading, unit, value, spread in (
        ("Log loss added", "rise of the log loss", "loss_rise", "loss_rise_std"),
        ("AUC lost", "fall of the AUC", "auc_drop", "auc_drop_std"),
    ):
        series = [
            _spread(task, [(getattr(one, value)[t], getattr(one, spread)[t]) for one in shown], t)
            for t, task in enumerate(tasks)
        ]
        if any(v is not None for one in series for v in one.value):
            drawing = charts.dot_chart(
                labels, series, title=heading, x_label=unit, reference=0.0, bars=len(tasks) == 1
            )
            figures.append(figure(heading, drawing, legend=[(task, k) for k, task in enumerate(tasks)]))
    if isinstance(subject.run.model, ARMNet):
        figures.append(_armnet(field_importance(subject.run.model)))
    note = (
        "What is lost when a field's values are swapped between rows; whiskers are one standard deviation "
        "over permutations. Fields that tell the same can stand in for each other and look dispensable."
    )
    if len(importance) > len(shown):
        note += f" The first {len(shown)} of {len(importance)} fields."
    return section("What it leans on", figures, note=note)


def _armnet(shares: dict[str, float]) -> str:
    kept = dict(list(shares.items())[:MOST_FIELDS])
    nothing = [None] * len(kept)
    dots = charts.Dots("share", list(kept.values()), nothing, nothing, 4)
    drawing = charts.dot_chart(
        list(kept), [dots], title="ARM-Net's field weights", x_label="share of |v|", reference=0.0, bars=True
    )
    return figure(
        "ARM-Net's own reading",
        drawing,
        note="Sum of |v| over neurons: what the model holds ready, not used.",
    )


def _spread(name: str, values: Sequence[tuple[float | None, float | None]], hue: int) -> charts.Dots:
    low = [None if v is None or s is None else v - s for v, s in values]
    high = [None if v is None or s is None else v + s for v, s in values]
    return charts.Dots(name, [v for v, _ in values], low, high, hue)


def _making(subject: Subject) -> str:
    record = subject.run.record
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    rows = ", ".join(f"{count:,} {split}" for split, count in record["rows"].items())
    entries = [
        ("model", f"{record['model']}, {record['parameters']:,} parameters"),
        ("rows", rows),
        ("settings", json.dumps(record["settings"])),
        ("versions", versions),
        ("trained on (SHA-256)", record["examples_sha256"]),
        ("judged on (SHA-256)", subject.examples.sha256),
    ]
    return section("How it was made") + facts(entries)
