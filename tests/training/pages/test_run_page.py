from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from rankd_training.pages.run_page import measure_importance, run_page
from rankd_training.recipes import ctr
from rankd_training.runs.evaluation import evaluate_run
from rankd_training.runs.subject import load_subject
from rankd_training.settings import TrainSettings
from tests.training.tables import write


class Reader(HTMLParser):
    """Collects tags and checks that each is closed in its turn."""

    VOID = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert name not in {"src", "href", "srcset", "onload", "onclick"}, (name, value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def report(folder: Path, model: str, config: dict[str, object]) -> str:
    examples, schema = write(folder)
    run = ctr.train(TrainSettings(examples, schema, folder / "run", model, config, epochs=2)).folder
    subject = load_subject(run, examples)
    evaluation = evaluate_run(subject, by=["tags"], resamples=10)
    return run_page(subject, evaluation, measure_importance(subject, shuffles=1))


@pytest.mark.parametrize(
    ("model", "config"),
    [("mlcc", {"embedding_width": 4, "hidden": [8]}), ("armnet", {"hidden": [8]}), ("lr", {})],
)
def test_a_report_is_one_whole_page_that_needs_nothing_else(
    tmp_path: Path, model: str, config: dict[str, object]
) -> None:
    html = report(tmp_path, model, config)
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    assert "script" not in reader.seen
    assert "link" not in reader.seen
    assert not re.search(r"https?:|//|url\(|@import", html)
    assert str(tmp_path) not in html
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    for drawing in drawings:
        ElementTree.fromstring(drawing)
        assert "nan" not in drawing
    for heading in (
        "Training loss",
        "ROC",
        "Calibration",
        "Scores of click",
        "AUC by tags",
        "Log loss added",
    ):
        assert f"<h3>{heading}</h3>" in html
    assert ("ARM-Net&#x27;s own reading" in html) == (model == "armnet")
