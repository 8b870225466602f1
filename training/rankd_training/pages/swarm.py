"""Two pictures of interactions over many models (arXiv 2305.10181): the swarm of pairs, the halo of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from rankd_training.pages.svg import Plot, colour, number, picture, tag

__all__ = ["Halo", "Swarm", "halo_chart", "swarm_chart"]

ROW_HEIGHT = 34
DOT = 3.0
LABEL_WIDTH, MOST_LABEL = 6.6, 230
SIZE, RING, REACH = 280, 74.0, 40.0
LABEL_AT = 128


@dataclass(frozen=True, slots=True)
class Swarm:
    """One row: a value a model, and the value of the model that they surround."""

    label: str
    values: Sequence[float]
    reference: float


@dataclass(frozen=True, slots=True)
class Halo:
    """Interactions round a boundary, from the first field's mask upward through the second's.

    Attributes:
        one: first field, to the right where its mask goes up.
        other: second field, to the top where its mask goes up.
        values: interactions, evenly round the circle.
        masks: what is said of each point.
    """

    one: str
    other: str
    values: Sequence[float]
    masks: Sequence[str]


def swarm_chart(rows: Sequence[Swarm], *, title: str, x_label: str, width: float = 760) -> str:
    """Draw a row a pair, a dot a model; dots that would overlap move up and down."""
    values = [value for row in rows for value in (*row.values, row.reference)] + [0.0]
    margin = (max(values) - min(values)) * 0.05 or 0.5
    left = 16 + min(MOST_LABEL, LABEL_WIDTH * max(len(row.label) for row in rows))
    plot = Plot.of(
        (min(values) - margin, max(values) + margin),
        (len(rows), 0),
        size=(width, 50 + ROW_HEIGHT * len(rows)),
        left=left,
    )
    parts = plot.grid(x_label=x_label, across=False)
    zero = plot.x(0)
    parts.append(tag("line", x1=zero, x2=zero, y1=plot.y.stop, y2=plot.y.start, class_="reference"))
    for k, row in enumerate(rows):
        middle = plot.y(k + 0.5)
        parts.append(tag("text", escape(row.label), x=left - 8, y=middle + 4, class_="label end"))
        places = [plot.x(value) for value in row.values]
        for x, value, away in zip(places, row.values, _apart(places), strict=True):
            said = tag("title", number(value))
            parts.append(
                tag("circle", said, cx=x, cy=middle + away, r=DOT, class_="dot faint", fill=colour(0))
            )
        at = plot.x(row.reference)
        said = tag("title", f"the model itself: {number(row.reference)}")
        shape = f"M{at:.1f} {middle - 6:.1f}l5 6l-5 6l-5-6Z"
        parts.append(tag("path", said, d=shape, class_="dot", fill=colour(1)))
    return picture(parts, width=plot.width, height=plot.height, title=title)


def halo_chart(halo: Halo, largest: float, *, title: str) -> str:
    """Draw a ring that stands for no interaction, and the contour inside (below 0) or outside it (above 0).

    Args:
        halo: one pair.
        largest: the absolute interaction that reaches farthest from the ring; the same for charts to compare.
        title: for those who cannot see it.
    """
    middle = SIZE / 2
    parts = [
        tag("circle", cx=middle, cy=middle, r=RING, class_="reference"),
        tag("line", x1=middle - 6, x2=middle + 6, y1=middle, y2=middle, class_="base"),
        tag("line", x1=middle, x2=middle, y1=middle - 6, y2=middle + 6, class_="base"),
    ]
    points = []
    for k, value in enumerate(halo.values):
        angle = 2 * math.pi * k / len(halo.values)
        radius = RING + REACH * (value / largest if largest else 0.0)
        points.append((middle + radius * math.cos(angle), middle - radius * math.sin(angle)))
    outline = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z"
    parts.append(tag("path", d=outline, class_="band", fill=colour(0)))
    parts.append(tag("path", d=outline, class_="line", stroke=colour(0)))
    for (x, y), value, mask in zip(points, halo.values, halo.masks, strict=True):
        said = tag("title", f"{escape(mask)}: {number(value)}")
        parts.append(tag("circle", said, cx=x, cy=y, r=3.2, class_="dot", fill=colour(0)))
    for text, x, y in (
        (f"{halo.one} ↑", middle + LABEL_AT, middle),
        (f"{halo.one} ↓", middle - LABEL_AT, middle),
        (f"{halo.other} ↑", middle, middle - LABEL_AT),
        (f"{halo.other} ↓", middle, middle + LABEL_AT),
    ):
        turned = "" if y != middle else f"rotate(-90 {x:.1f} {y:.1f})"
        placed = {"transform": turned} if turned else {}
        parts.append(tag("text", escape(text), x=x, y=y + 4, class_="axis mid", **placed))
    return picture(parts, width=SIZE, height=SIZE, title=title)


def _apart(places: Sequence[float]) -> list[float]:
    """How far each dot moves off its row so that none covers another: nearest free place, up before down."""
    taken: list[tuple[float, float]] = []
    moved = []
    most = ROW_HEIGHT / 2 - DOT
    steps = [0.0] + [sign * k * DOT * 1.4 for k in range(1, 5) for sign in (-1, 1)]
    for x in places:
        free = (
            y
            for y in steps
            if abs(y) <= most and all(math.hypot(x - tx, y - ty) >= 2 * DOT * 0.8 for tx, ty in taken)
        )
        away = next(free, 0.0)
        taken.append((x, away))
        moved.append(away)
    return moved
