from __future__ import annotations

from xml.etree import ElementTree

import pytest

from rankd_training.pages.charts import (
    Axes,
    Distribution,
    Dots,
    Line,
    distribution_chart,
    dot_chart,
    line_chart,
)


def circles(drawing: str) -> list[tuple[float, float]]:
    return [
        (float(c.attrib["cx"]), float(c.attrib["cy"])) for c in ElementTree.fromstring(drawing).iter("circle")
    ]


def test_points_lie_where_their_numbers_are() -> None:
    line = Line("loss", [1, 2, 3], [4.0, 2.0, 0.0], marks=True)
    drawing = line_chart([line], Axes("epoch", "loss", (1, 3), (0, 4)), title="loss")
    (x1, y1), (x2, y2), (x3, y3) = circles(drawing)
    assert x2 - x1 == pytest.approx(x3 - x2)
    assert y2 - y1 == pytest.approx(y3 - y2)
    assert y1 < y3  # larger is higher, and pixels count downwards
    assert "loss: 2, 2" in drawing


def test_rows_keep_their_order_and_missing_values_leave_no_dot() -> None:
    dots = Dots("auc", [0.6, None, 0.7], [0.5, None, None], [0.65, None, None])
    drawing = dot_chart(["a", "b", "c"], [dots], title="auc", x_label="AUC", reference=0.5)
    (x1, y1), (x2, y2) = circles(drawing)
    assert x1 < x2
    assert y1 < y2
    assert drawing.count("whisker") == 1


def test_names_from_data_cannot_leave_their_place() -> None:
    nasty = "<script>alert('x')</script>&\""
    for drawing in (
        dot_chart([nasty], [Dots(nasty, [1.0], [None], [None])], title=nasty, x_label=nasty),
        line_chart([Line(nasty, [0, 1], [0, 1], marks=True)], Axes(nasty, nasty), title=nasty),
        distribution_chart([Distribution(nasty, [0, 1], [1.0])], title=nasty, x_label=nasty),
    ):
        root = ElementTree.fromstring(drawing)  # is well formed
        assert not list(root.iter("script"))


def test_flat_and_single_data_can_be_drawn() -> None:
    for drawing in (
        line_chart([Line("flat", [1], [0.5], marks=True)], Axes("x"), title="t"),
        dot_chart(["only"], [Dots("d", [0.0], [0.0], [0.0])], title="t", x_label="x", reference=0.0),
        distribution_chart([Distribution("d", [0, 1], [0.0])], title="t", x_label="x"),
    ):
        assert "nan" not in drawing
        ElementTree.fromstring(drawing)
