from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from rankd_training.errors import SettingError
from rankd_training.explanation.explanation import ExplainSettings, Explanation, explain
from rankd_training.pages.explanation_page import explanation_page
from rankd_training.recipes import ctr
from rankd_training.runs.subject import Subject, load_subject
from rankd_training.settings import TrainSettings
from tests.training.tables import write


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A network that has learned that income and price decide together, and nothing else does."""
    folder = tmp_path_factory.mktemp("explained")
    examples, schema = write(folder)
    told = TrainSettings(
        examples,
        schema,
        folder / "run",
        model_config={"embedding_width": 4, "hidden": [16], "embedding_std": 0.3, "dropout": 0.1},
        epochs=12,
        patience=12,
        batch_size=128,
        learning_rate=0.01,
    )
    return load_subject(ctr.train(told).folder, examples)


@pytest.fixture(scope="module")
def found(subject: Subject) -> Explanation:
    return explain(subject, ExplainSettings(top=3, task="click", shuffles=10))


def test_the_planted_pair_is_found_in_a_trained_network_and_in_all_models_round_it(
    found: Explanation,
) -> None:
    strongest, *others = found.pairs
    assert {strongest.one, strongest.other} == {"income", "price"}
    assert set(list(found.effects)[:2]) == {"income", "price"}
    assert strongest.reference.value < -0.1
    assert strongest.span[1] < 0  # the sign holds over the whole set
    for pair in others:
        assert abs(pair.reference.value) < abs(strongest.reference.value) / 5
    for pair in found.pairs:
        assert all(p.loss <= (1 + found.settings.search.epsilon) * found.loss * (1 + 1e-9) for p in pair.halo)


def test_progress_ends_where_it_said_it_would(subject: Subject) -> None:
    heard: list[tuple[int, int, str]] = []
    settings = ExplainSettings(fields=("age", "price"), shuffles=2, max_rows=50)
    found = explain(subject, settings, progress=lambda *said: heard.append(said))
    assert found.rows == 50
    assert [(pair.one, pair.other) for pair in found.pairs] == [("age", "price")]
    assert heard[-1] == (11, 12, "age with price")  # nine fields, two searches, one pair
    assert [done for done, *_ in heard] == list(range(12))


def test_the_page_is_whole_and_the_json_holds_every_model(subject: Subject, found: Explanation) -> None:
    html = explanation_page(subject, found)
    assert not re.search(r"https?:|<script|url\(", html)
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) == 3 + 3  # effects twice, the swarm, a halo a pair
    for drawing in drawings:
        ElementTree.fromstring(drawing)
        assert "nan" not in drawing
    assert "always below 0" in html
    tree = json.loads(json.dumps(found.tree()))
    assert len(tree["pairs"][0]["halo"]) == 16
    assert tree["pairs"][0]["span"] == list(found.pairs[0].span)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (ExplainSettings(fields=("age", "prize")), "no field is called 'prize'; known: user_id"),
        (ExplainSettings(fields=("age", "age")), "'age' is named twice"),
        (ExplainSettings(fields=("age",)), "two fields or more, got 1"),
        (ExplainSettings(task="watch"), "no task is called 'watch'; known: click, buy"),
    ],
)
def test_wrong_questions_are_named(subject: Subject, settings: ExplainSettings, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        explain(subject, settings)
