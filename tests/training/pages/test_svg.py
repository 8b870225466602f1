from __future__ import annotations

import math

import pytest

from rankd_training.pages.svg import Plot, Scale, number, tag, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.612, 0.688, [0.62, 0.64, 0.66, 0.68]),
        (-3, 12, [-2.5, 0, 2.5, 5, 7.5, 10]),
        (5, 5, [5]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 6) == pytest.approx(expected)


def test_a_scale_maps_its_ends_also_upside_down_and_in_logarithms() -> None:
    assert [Scale(0, 4, 100, 0)(v) for v in (0, 1, 4)] == [100, 75, 0]
    assert [Scale(3, 0, 30, 0)(v) for v in (3, 0)] == [30, 0]
    assert [round(Scale(1, 100, 0, 10, log=True)(v), 6) for v in (1, 10, 100)] == [0, 5, 10]
    assert Scale(2, 2, 0, 10)(2) == 5


def test_a_path_breaks_where_a_point_is_no_number() -> None:
    plot = Plot.of((0, 1), (0, 1))
    path = plot.path([0, 0.5, 0.7, 1], [0, math.nan, 0.5, 1])
    assert path.count("M") == 2
    assert path.count("L") == 1


def test_attributes_are_escaped() -> None:
    assert tag("text", class_='"><script>') == '<text class="&quot;&gt;&lt;script&gt;"/>'


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12000.0, "12,000"), (0.25, "0.25"), (-0.5, "−0.5"), (0.70031, "0.7003")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text
