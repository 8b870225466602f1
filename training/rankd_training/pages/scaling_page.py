"""The scaling report as a page: every run, the fitted law and its band, one setting a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rankd_training.pages import charts
from rankd_training.pages.page import facts, figure, page, section, table
from rankd_training.trials.scaling import QUALITIES

__all__ = ["scaling_page"]


def scaling_page(report: Mapping[str, Any]) -> str:
    """Write the page from what `scale` returned, with name, date, command, machine and versions."""
    seeds = ", ".join(map(str, report["seeds"]))
    lead = f"{report['data']} · validation rows · seeds {seeds} · {report['date']}"
    body = [
        section(
            "How quality grows with size",
            note=(
                "Each dot is a run. The line is the law a + b · size^−c fitted to the mean of each size; the "
                "band holds the middle 95 % of fits to runs drawn anew. The smaller the better. Test rows "
                "were not read."
            ),
        )
    ]
    body += [_axis(setting, axis) for setting, axis in report["axes"].items()]
    body += [_laws(report), _making(report)]
    return page(f"Scaling report: {report['model']}", lead, body)


def _axis(setting: str, axis: Mapping[str, Any]) -> str:
    values = axis["values"]
    figures = []
    for hue, (quality, title) in enumerate(QUALITIES.items()):
        fit, runs = axis["fits"][quality], np.array(axis["runs"][quality])
        dots = charts.Line(
            "run",
            [value for value in values for _ in range(runs.shape[1])],
            runs.flatten().tolist(),
            hue=hue,
            marks=True,
            joined=False,
        )
        law = charts.Line("law", fit["x"], fit["y"], hue=hue, low=fit["low"], high=fit["high"])
        axes = charts.Axes(setting, title, x_ticks=values, log_x=True, x_range=_span(values))
        drawing = charts.line_chart([law, dots], axes, title=f"{title} by {setting}")
        figures.append(figure(f"{title} by {setting}", drawing, note=_law(fit)))
    return section(setting, figures)


def _laws(report: Mapping[str, Any]) -> str:
    rows = []
    for setting, axis in report["axes"].items():
        for quality, title in QUALITIES.items():
            fit = axis["fits"][quality]
            cells = [
                f"{fit['law'][name]:.4g}\t{fit[name][0]:.4g} to {fit[name][1]:.4g}"
                for name in ("a", "b", "c")
            ]
            settled = "yes" if fit["settled"] else "no"
            rows.append([setting, title, *cells, f"{100 * fit['explained']:.0f} %", settled])
    note = (
        "a is where the law ends, b what size 1 adds to it, c how fast that is made up. Small print: the "
        "middle 95 % of resamples. Where these runs do not settle c (its interval reaches an end of the "
        "search, or b may be 0), only the band says something, and nothing should be read off beyond it."
    )
    return section("Fitted laws", note=note) + table(
        ["setting", "quality", "a", "b", "c", "explained", "settled"], rows, words=2
    )


def _making(report: Mapping[str, Any]) -> str:
    machine = report["machine"]
    sizes = "; ".join(
        f"{setting}: "
        + ", ".join(f"{v} ({p:,})" for v, p in zip(axis["values"], axis["parameters"], strict=True))
        for setting, axis in report["axes"].items()
    )
    entries = [
        ("command", report["command"]),
        ("settings but for the one varied", str(report["base"])),
        ("weights", sizes),
        ("machine", f"{machine['cores']} cores of {machine['cpu']} ({machine['system']})"),
        ("versions", ", ".join(f"{name} {number}" for name, number in report["versions"].items())),
        ("rows (SHA-256)", report["examples_sha256"]),
    ]
    return section("How it was made") + facts(entries)


def _law(fit: Mapping[str, Any]) -> str:
    law = fit["law"]
    sign = "+" if law["b"] >= 0 else "−"
    words = f"{law['a']:.4f} {sign} {abs(law['b']):.4g} · x^−{law['c']:.3g}"
    return words if fit["settled"] else f"{words}; these runs do not settle c"


def _span(values: list[int]) -> tuple[float, float]:
    return min(values) / 1.1, max(values) * 1.1
