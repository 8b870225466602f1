"""A comparison as Markdown for the repository and as a table for the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from rankd_training.trials.comparison import MEASURES

__all__ = ["comparison_markdown", "comparison_table", "comparison_verdicts", "comparison_warnings"]

_KNOWN = "as far as the store of these runs knows"

_CHANCE = 0.05
_FEW_SEEDS = 3


def comparison_table(report: Mapping[str, Any]) -> Table:
    """Test metrics for the screen; the best mean of each task stands out."""
    seeds = len(report["seeds"])
    shown = Table(
        title=f"{report['data']}, test split, "
        + (f"mean ± deviation of {seeds} seeds" if seeds > 1 else "one seed"),
        title_justify="left",
        box=None,
    )
    shown.add_column("task", overflow="fold")
    shown.add_column("model", overflow="fold")
    for title in MEASURES.values():
        shown.add_column(title, justify="right", no_wrap=True)
    for row in _rows(report, "test", strong="[bold]{}[/]"):
        shown.add_row(*(cell.replace(" ± 0.", " ±.") for cell in row))
    return shown


def comparison_verdicts(report: Mapping[str, Any]) -> list[str]:
    """Say of each pair, on a line, whether other seeds or other test rows could turn it round."""
    count = len(report["seeds"])
    lines = []
    for entry in report["differences"]:
        found, rows = entry["seeds"], entry["auc"]
        said = f"{entry['task']}: {' − '.join(entry['models'])} = {found['mean']:+.4f} AUC: "
        if rows is not None:
            said += f"{_verdict(found['p_holm'], rows)} (95 % over test users or rows: {_span(rows)}; "
        else:
            said += "one class only, so no AUC ("
        lines.append(f"{said}{_of_seeds(found['p_holm'], count)})")
    return lines


def comparison_warnings(report: Mapping[str, Any]) -> list[str]:
    """Say what runs said of themselves, such as that training ended too early, a line each."""
    said: dict[tuple[str, str], list[str]] = {}
    for name, model in report["models"].items():
        for warning, seeds in model.get("warnings", {}).items():
            every = len(seeds) == len(report["seeds"])
            of = "" if every else f", seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
            said.setdefault((warning, of), []).append(name)
    return [f"{', '.join(names)}{of}: {warning}" for (warning, of), names in said.items()]


def _verdict(p: float | None, rows: Mapping[str, float]) -> str:
    """Two kinds of chance: of the runs (`p` over seeds), and of the rows that they are judged on."""
    by_rows = not rows["low"] <= 0 <= rows["high"]
    if p is None:
        return "these rows tell them apart" if by_rows else "no more than chance of the rows"
    if p >= _CHANCE:
        return "these rows tell them apart, other seeds may not" if by_rows else "no more than chance"
    return (
        "more than chance" if by_rows else "more than the seeds' chance, but other rows could say otherwise"
    )


def _of_seeds(p: float | None, count: int) -> str:
    """Name the test over seeds, and how little a few of them decide."""
    if p is None:
        return "no test over seeds: " + ("there is one" if count == 1 else "all differ alike")
    few = p >= _CHANCE and count <= _FEW_SEEDS
    hint = f", but {count} seeds rarely tell: try 5" if few else ""
    return f"paired t-test over {count} seeds: p {_p_value(p)}{hint}"


def _span(found: Mapping[str, float]) -> str:
    return f"{found['low']:+.4f} to {found['high']:+.4f}"


def comparison_markdown(report: Mapping[str, Any]) -> str:
    """Write the page that a reader of the repository sees."""
    rows, machine = report["rows"], report["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lines = [
        f"# Results on {report['data']}",
        "",
        f"`{report['command']}`, {report['date']}, {machine['cores']} cores of {machine['cpu']} "
        f"({machine['system']}), {versions}.",
        "",
        f"{rows['train']:,} training, {rows['valid']:,} validation, {rows['test']:,} test rows. "
        f"Mean and standard deviation over seeds {', '.join(map(str, report['seeds']))}. Higher is better "
        "for AUC, lower for log loss and calibration error (ECE); bold is the best mean.",
        "",
        "Epochs and settings are chosen on validation rows alone; test rows are scored once a setting and "
        f"seed, after training. {_test_reads(report)}",
    ]
    for split in ("test", "valid"):
        lines += ["", f"## {'Test' if split == 'test' else 'Validation'}", ""]
        lines += _markdown_table(["task", "model", *MEASURES.values()], _rows(report, split, strong="**{}**"))
    if report["differences"]:
        lines += ["", "## Differences on test", ""]
        lines += _difference_text(report)
    lines += ["", "## Settings", ""]
    lines += _markdown_table(
        ["model", "parameters", "best epochs", "time a run, s", "settings from", "settings"],
        [_settings_row(name, model) for name, model in report["models"].items()],
    )
    warnings = comparison_warnings(report)
    if warnings:
        lines += ["", "## Warnings", "", *(f"- {line}" for line in warnings)]
    lines += ["", f"Examples: SHA-256 `{report['examples_sha256']}`."]
    return "\n".join(lines) + "\n"


def _difference_text(report: Mapping[str, Any]) -> list[str]:
    resamples = report["resamples"]
    return [
        f"First model minus the other. Seeds: mean difference of the runs' AUCs, and the p-value of a paired "
        f"t-test over seeds, adjusted for the number of comparisons (Holm). The rest: the middle 95 % of "
        f"{resamples} paired resamples of the test split's users (rows, where there are none), for the mean "
        "of the runs' AUCs, the same within users, and the AUC of the runs' mean prediction. Where an "
        "interval holds zero, these rows cannot tell the two apart.",
        "",
        *_markdown_table(
            ["task", "models", "seeds", "p", "AUC", "AUC per user", "AUC of mean prediction"],
            [
                [
                    entry["task"],
                    " − ".join(entry["models"]),
                    f"{entry['seeds']['mean']:+.4f} ± {entry['seeds']['std']:.4f}",
                    _p_value(entry["seeds"]["p_holm"]),
                    *(_interval(entry[measure]) for measure in ("auc", "user_auc", "ensemble_auc")),
                ]
                for entry in report["differences"]
            ],
        ),
    ]


def _test_reads(report: Mapping[str, Any]) -> str:
    """Say of which models more than this one setting met the test rows, as far as this store knows."""
    more = {
        name: model["settings_judged_on_test"]
        for name, model in report["models"].items()
        if model["settings_judged_on_test"] > 1
    }
    if not more:
        return f"No other setting of these models has been scored on them, {_KNOWN}."
    counts = ", ".join(f"{name} {count}" for name, count in more.items())
    scored = f"Settings scored on them so far, these included and {_KNOWN}"
    return f"{scored}: {counts}; one for every other model."


def _settings_row(name: str, model: Mapping[str, Any]) -> list[str]:
    parameters, epochs = model["parameters"], model["best_epochs"]
    return [
        name,
        "" if parameters is None else f"{parameters:,}",
        ", ".join("" if epoch is None else str(epoch) for epoch in epochs).strip(", "),
        ", ".join(map(str, model["training_s"])),
        model["settings_from"],
        f"`{json.dumps(model['settings'])}`",
    ]


def _rows(report: Mapping[str, Any], split: str, *, strong: str) -> list[list[str]]:
    models = {name: model["metrics"][split] for name, model in report["models"].items()}
    rows = []
    for task in next(iter(models.values())):
        for name, metrics in models.items():
            cells = []
            for measure in MEASURES:
                spread = metrics[task][measure]
                means = [other[task][measure]["mean"] for other in models.values()]
                known = [mean for mean in means if mean is not None]
                best = (max if measure.endswith("auc") else min)(known, default=None)
                text = _words(spread)
                stands_out = len(models) > 1 and spread["mean"] is not None and spread["mean"] == best
                cells.append(strong.format(text) if stands_out else text)
            rows.append([task, name, *cells])
    return rows


def _words(spread: Mapping[str, Any]) -> str:
    """None: a task of one class, or rows without users. One seed has no deviation."""
    if spread["mean"] is None:
        return "none"
    return f"{spread['mean']:.4f}" + (f" ± {spread['std']:.4f}" if len(spread["values"]) > 1 else "")


def _p_value(p: float | None) -> str:
    if p is None:
        return "none"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"  # noqa: PLR2004


def _interval(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "none"
    return f"{found['difference']:+.4f} ({_span(found)})"


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
