"""Charts as SVG: lines with bands, dots with whiskers, distributions. Hovering shows a point's numbers.

Legends are not part of a picture; `page.figure` writes them from the same names and colours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from rankd_training.pages.svg import Plot, colour, number, picture, tag

__all__ = ["Axes", "Distribution", "Dots", "Line", "distribution_chart", "dot_chart", "line_chart"]

ROW_HEIGHT, SERIES_HEIGHT = 14, 11
LABEL_WIDTH = 6.6
MOST_LABEL = 190


@dataclass(frozen=True, slots=True)
class Axes:
    """What a chart is drawn on.

    Attributes:
        x_label: below.
        y_label: beside.
        x_range: by default what the data needs.
        y_range: by default what data and bands need, with a margin.
        x_ticks: by default round numbers.
        log_x: logarithmic x.
        diagonal: draw y = x.
        mark_x: draw an upright line there.
    """

    x_label: str
    y_label: str = ""
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    x_ticks: Sequence[float] | None = None
    log_x: bool = False
    diagonal: bool = False
    mark_x: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        name: in the legend.
        x: positions, as long as y.
        y: values.
        hue: index of its colour.
        low: lower edge of a band around it, if any.
        high: upper edge.
        dashed: for what is not the main thing.
        marks: draw the points themselves.
        joined: draw the line between points.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    hue: int = 0
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    dashed: bool = False
    marks: bool = False
    joined: bool = True


@dataclass(frozen=True, slots=True)
class Dots:
    """A value a row with whiskers; None leaves a row or its whiskers out."""

    name: str
    value: Sequence[float | None]
    low: Sequence[float | None]
    high: Sequence[float | None]
    hue: int = 0


@dataclass(frozen=True, slots=True)
class Distribution:
    """Density between edges: one more edge than densities."""

    name: str
    edges: Sequence[float]
    density: Sequence[float]
    hue: int = 0


def line_chart(lines: Sequence[Line], axes: Axes, *, title: str) -> str:
    """Draw lines over each other; `title` is for those who cannot see them."""
    edges = [e for line in lines for e in (line.low or (), line.high or ())]
    x_range = axes.x_range or _range(line.x for line in lines)
    y_range = axes.y_range or _padded(_range([*(line.y for line in lines), *edges]))
    plot = Plot.of(x_range, y_range, log_x=axes.log_x)
    parts = plot.grid(x_label=axes.x_label, y_label=axes.y_label, x_ticks=axes.x_ticks)
    if axes.diagonal:
        ends = (max(x_range[0], y_range[0]), min(x_range[1], y_range[1]))
        parts.append(tag("path", d=plot.path(ends, ends), class_="reference"))
    if axes.mark_x is not None:
        at = plot.x(axes.mark_x)
        parts.append(tag("line", x1=at, x2=at, y1=plot.y.stop, y2=plot.y.start, class_="reference"))
    for line in lines:
        parts += _line(plot, line)
    return picture(parts, width=plot.width, height=plot.height, title=title)


def _line(plot: Plot, line: Line) -> list[str]:
    parts, hue = [], colour(line.hue)
    if line.low is not None and line.high is not None and line.joined:
        outline = plot.path([*line.x, *reversed(line.x)], [*line.low, *reversed(line.high)])
        parts.append(tag("path", d=outline + "Z", class_="band", fill=hue))
    if line.joined:
        look = "line dashed" if line.dashed else "line"
        parts.append(tag("path", d=plot.path(line.x, line.y), class_=look, stroke=hue))
    if line.marks:
        for k, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
            at = plot.x(x)
            if line.low is not None and line.high is not None and not line.joined:
                low, high = plot.y(line.low[k]), plot.y(line.high[k])
                parts.append(tag("line", x1=at, x2=at, y1=low, y2=high, class_="whisker", stroke=hue))
            said = tag("title", f"{escape(line.name)}: {number(x)}, {number(y)}")
            parts.append(tag("circle", said, cx=at, cy=plot.y(y), r=3.2, class_="dot", fill=hue))
    return parts


def dot_chart(
    labels: Sequence[str],
    series: Sequence[Dots],
    *,
    title: str,
    x_label: str,
    reference: float | None = None,
    bars: bool = False,
) -> str:
    """Draw one row a label with a dot and whiskers a series.

    Args:
        labels: of the rows, from the top.
        series: each as long as the labels.
        title: for those who cannot see it.
        x_label: of the axis.
        reference: an upright line there, such as chance.
        bars: draw a bar from the reference to each dot.
    """
    numbers = [
        [v for v in values if v is not None] for one in series for values in (one.value, one.low, one.high)
    ]
    low, high = _padded(_range([*numbers, [reference] if reference is not None else []]))
    left = 16 + min(MOST_LABEL, LABEL_WIDTH * max(map(len, labels)))
    row_height = ROW_HEIGHT + SERIES_HEIGHT * len(series)
    size = (480, 50 + row_height * len(labels))
    plot = Plot.of((low, high), (len(labels), 0), size=size, left=left)
    parts = plot.grid(x_label=x_label, across=False)
    for row, label in enumerate(labels):
        middle = plot.y(row + 0.5)
        shown = label if len(label) * LABEL_WIDTH <= MOST_LABEL else label[: int(MOST_LABEL / 6.6) - 1] + "…"
        text = escape(shown) + tag("title", escape(label))
        parts.append(tag("text", text, x=left - 8, y=middle + 4, class_="label end"))
        for k, one in enumerate(series):
            at = middle + SERIES_HEIGHT * (k - (len(series) - 1) / 2)
            parts += _dot(plot, one, row, at, reference if bars else None)
    if reference is not None:
        at = plot.x(reference)
        parts.append(tag("line", x1=at, x2=at, y1=plot.y.stop, y2=plot.y.start, class_="reference"))
    return picture(parts, width=plot.width, height=plot.height, title=title)


def _dot(plot: Plot, one: Dots, row: int, at: float, bar_from: float | None) -> list[str]:
    value, low, high = one.value[row], one.low[row], one.high[row]
    if value is None:
        return []
    parts, hue = [], colour(one.hue)
    if bar_from is not None:
        start, stop = sorted((plot.x(bar_from), plot.x(value)))
        parts.append(tag("rect", x=start, width=stop - start, y=at - 4, height=8, class_="bar", fill=hue))
    said = f"{escape(one.name)}: {number(value)}"
    if low is not None and high is not None:
        said += f" ({number(low)} to {number(high)})"
        parts.append(tag("line", x1=plot.x(low), x2=plot.x(high), y1=at, y2=at, class_="whisker", stroke=hue))
    parts.append(tag("circle", tag("title", said), cx=plot.x(value), cy=at, r=3.4, class_="dot", fill=hue))
    return parts


def distribution_chart(series: Sequence[Distribution], *, title: str, x_label: str) -> str:
    """Draw densities as filled steps over each other."""
    highest = max(max(one.density) for one in series)
    edges = series[0].edges
    plot = Plot.of((edges[0], edges[-1]), (0, highest * 1.06 or 1))
    parts = plot.grid(x_label=x_label, y_label="density")
    for one in series:
        x = [edge for edge in one.edges for _ in (0, 1)]
        y = [0.0, *(value for value in one.density for _ in (0, 1)), 0.0]
        hue = colour(one.hue)
        parts.append(tag("path", d=plot.path(x, y) + "Z", class_="band", fill=hue))
        parts.append(tag("path", d=plot.path(x, y), class_="line thin", stroke=hue))
    return picture(parts, width=plot.width, height=plot.height, title=title)


def _range(groups: Iterable[Sequence[float]]) -> tuple[float, float]:
    values = [value for group in groups for value in group if math.isfinite(value)]
    return (min(values), max(values)) if values else (0.0, 1.0)


def _padded(span: tuple[float, float]) -> tuple[float, float]:
    margin = (span[1] - span[0]) * 0.05 or 0.5
    return span[0] - margin, span[1] + margin
