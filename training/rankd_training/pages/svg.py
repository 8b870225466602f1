"""Plot areas in SVG: scales, round ticks, grid, axes. Colours are CSS variables of `page.py`.

Everything that comes from data passes `escape`; coordinates are rounded to a tenth of a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Plot", "Scale", "colour", "number", "picture", "tag", "ticks"]

NUM_COLOURS = 8
THOUSAND = 1000


@dataclass(frozen=True, slots=True)
class Scale:
    """A straight map from data to pixels; `log` maps logarithms instead."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Pixel of a value."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = math.log(value) if self.log else value
        share = (value - low) / (high - low) if high != low else 0.5
        return self.start + share * (self.stop - self.start)


@dataclass(frozen=True, slots=True)
class Plot:
    """A frame with room for labels around it. Sizes are pixels of the picture's own coordinates."""

    width: float
    height: float
    x: Scale
    y: Scale

    @classmethod
    def of(
        cls,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        *,
        size: tuple[float, float] = (480, 300),
        left: float = 52,
        log_x: bool = False,
    ) -> Plot:
        """Lay a plot out; `left` is the room for the labels of the y axis."""
        width, height = size
        return cls(
            width,
            height,
            Scale(*x_range, left, width - 12, log_x),
            Scale(*y_range, height - 40, 10),
        )

    def grid(
        self,
        *,
        x_label: str,
        y_label: str = "",
        x_ticks: Sequence[float] | None = None,
        y_ticks: Sequence[float] | None = None,
        across: bool = True,
    ) -> list[str]:
        """Grid lines, tick labels and axis titles.

        Args:
            x_label: below.
            y_label: beside.
            x_ticks: where; by default about six round numbers.
            y_ticks: where; by default about five round numbers.
            across: whether the y axis has numbers at all.
        """
        parts = []
        x_ticks = ticks(self.x.low, self.x.high, 6) if x_ticks is None else x_ticks
        bottom, top = self.y.start, self.y.stop
        for value in x_ticks:
            at = self.x(value)
            parts.append(tag("line", x1=at, x2=at, y1=top, y2=bottom, class_="grid"))
            parts.append(tag("text", number(value), x=at, y=bottom + 16, class_="tick mid"))
        if across:
            for value in ticks(self.y.low, self.y.high, 5) if y_ticks is None else y_ticks:
                at = self.y(value)
                parts.append(tag("line", x1=self.x.start, x2=self.x.stop, y1=at, y2=at, class_="grid"))
                parts.append(tag("text", number(value), x=self.x.start - 7, y=at + 4, class_="tick end"))
        middle = (self.x.start + self.x.stop) / 2
        parts.append(tag("text", escape(x_label), x=middle, y=self.height - 5, class_="axis mid"))
        if y_label:
            at = (top + bottom) / 2
            parts.append(
                tag(
                    "text",
                    escape(y_label),
                    x=0,
                    y=0,
                    class_="axis mid",
                    transform=f"translate(12 {at:.1f}) rotate(-90)",
                )
            )
        parts.append(tag("line", x1=self.x.start, x2=self.x.stop, y1=bottom, y2=bottom, class_="base"))
        return parts

    def path(self, x: Sequence[float], y: Sequence[float]) -> str:
        """Points joined by lines, as the `d` of a path; runs of points that are no numbers are left out."""
        steps, pen = [], "M"
        for px, py in zip(x, y, strict=True):
            if math.isfinite(px) and math.isfinite(py):
                steps.append(f"{pen}{self.x(px):.1f} {self.y(py):.1f}")
                pen = "L"
            else:
                pen = "M"
        return "".join(steps)


def picture(parts: Sequence[str], *, width: float, height: float, title: str) -> str:
    """Close a picture; `title` is what a reader hears who cannot see it."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )


def tag(name: str, text: str = "", **attributes: float | str) -> str:
    """One element. `class_` and `stroke_width` lose or turn their underscores; `text` is markup already."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_plain(value)}"' for key, value in attributes.items()
    )
    return f"<{name}{written}>{text}</{name}>" if text else f"<{name}{written}/>"


def colour(index: int) -> str:
    """Name the variable of a series' colour."""
    return f"var(--c{index % NUM_COLOURS + 1})"


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers within a range, about as many as asked for."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + k) * step, 12) for k in range(count)]


def number(value: float) -> str:
    """As short as it can be read: 0.25, 12,000, 3e-05."""
    if value == 0:
        return "0"
    if abs(value) >= THOUSAND and float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.4g}".replace("-", "−")


def _plain(value: float | str) -> str:
    if isinstance(value, str):
        return escape(value)
    return f"{value:.1f}".removesuffix(".0")
