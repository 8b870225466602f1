"""A picture of one run, second by second: latency above, what became of the requests below. Plain SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from rankd.load.sender import Outcome

__all__ = ["draw"]

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 860, 190, 64, 60, 60
_OK, _UNAVAILABLE = 200, 503
_LINES = {"p50": "#2a6fbb", "p99": "#c2571a"}
_FATES: dict[str, tuple[str, Callable[[Outcome, float], bool]]] = {
    "in time": ("#2e7d4f", lambda o, d: o.status == _OK and o.done_s - o.due_s <= d),
    "late": ("#d9a400", lambda o, d: o.status == _OK and o.done_s - o.due_s > d),
    "refused": ("#8a8f98", lambda o, d: o.status == _UNAVAILABLE),
    "failed": ("#b3261e", lambda o, d: o.status not in {_OK, _UNAVAILABLE}),
}


def draw(outcomes: Sequence[Outcome], title: str, deadline_ms: float) -> str:
    """Draw a run as an SVG document that needs nothing but itself."""
    seconds = int(max(o.due_s for o in outcomes)) + 1
    by_second: list[list[Outcome]] = [[] for _ in range(seconds)]
    for outcome in outcomes:
        by_second[int(outcome.due_s)].append(outcome)
    parts = [_latency(by_second, deadline_ms), _fates(by_second, deadline_ms / 1000)]
    height = _TOP + 2 * (_HEIGHT + _GAP)
    size = f'viewBox="0 0 {_LEFT + _WIDTH + 24} {height}" style="font:13px system-ui,sans-serif"'
    head = f'<rect width="100%" height="100%" fill="#fff"/>{_text(_LEFT, 24, title, "#111")}'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{head}{"".join(parts)}</svg>\n'


def _latency(by_second: Sequence[Sequence[Outcome]], deadline_ms: float) -> str:
    taken = [[1000 * (o.done_s - o.due_s) for o in second if o.status == _OK] for second in by_second]
    quantiles = {"p50": 50, "p99": 99}
    lines = {
        name: [float(np.percentile(t, q)) if t else None for t in taken] for name, q in quantiles.items()
    }
    top = max([v for line in lines.values() for v in line if v is not None] + [1.0]) * 1.1
    drawn = [_axis(_TOP, top, "latency, ms")]
    if deadline_ms <= top:
        y = _TOP + _HEIGHT * (1 - deadline_ms / top)
        drawn.append(f'<path d="M{_LEFT},{y:.1f}h{_WIDTH}" stroke="#b3261e" stroke-dasharray="4 4"/>')
    for at, (name, line) in enumerate(lines.items()):
        known = [(_x(at_s, len(line)), v) for at_s, v in enumerate(line) if v is not None]
        points = " ".join(f"{x:.1f},{_TOP + _HEIGHT * (1 - v / top):.1f}" for x, v in known)
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{_LINES[name]}" stroke-width="2"/>')
        drawn.append(_legend(at, name, _LINES[name], _TOP))
    return "".join(drawn)


def _fates(by_second: Sequence[Sequence[Outcome]], deadline_s: float) -> str:
    y0 = _TOP + _HEIGHT + _GAP
    counts = {
        name: [sum(is_it(o, deadline_s) for o in second) for second in by_second]
        for name, (_, is_it) in _FATES.items()
    }
    top = max(sum(c[s] for c in counts.values()) for s in range(len(by_second))) * 1.05 or 1
    drawn = [_axis(y0, top, "requests a second")]
    floor = np.zeros(len(by_second))
    bar = _WIDTH / len(by_second)
    for at, (name, values) in enumerate(counts.items()):
        for s, value in enumerate(values):
            if value:
                y = y0 + _HEIGHT * (1 - (floor[s] + value) / top)
                size = f'width="{max(bar - 1, 0.5):.1f}" height="{_HEIGHT * value / top:.1f}"'
                drawn.append(f'<rect x="{_LEFT + s * bar:.1f}" y="{y:.1f}" {size} fill="{_FATES[name][0]}"/>')
        floor += values
        drawn.append(_legend(at, name, _FATES[name][0], y0))
    return "".join(drawn)


def _x(second: int, seconds: int) -> float:
    return _LEFT + _WIDTH * (second + 0.5) / seconds


def _axis(y: int, top: float, label: str) -> str:
    drawn = [_text(_LEFT, y - 8, label)]
    for part in (0, 0.25, 0.5, 0.75, 1):
        at = y + _HEIGHT * (1 - part)
        drawn.append(f'<path d="M{_LEFT},{at:.1f}h{_WIDTH}" stroke="#e6e8eb"/>')
        drawn.append(_text(_LEFT - 8, at + 4, f"{top * part:,.0f}", anchor="end"))
    return "".join(drawn)


def _legend(at: int, name: str, colour: str, y: int) -> str:
    x = _LEFT + 170 + 90 * at
    return f'<rect x="{x}" y="{y - 18}" width="11" height="11" fill="{colour}"/>{_text(x + 16, y - 8, name)}'


def _text(x: float, y: float, text: str, colour: str = "#555", anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{escape(text)}</text>'
