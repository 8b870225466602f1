"""`rankd rank` against a real service: words for people where something is not as it should be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rankd.cli.bench import missed
from rankd.cli.rank import REASONS, RUNGS, shown_score
from rankd.load.sender import Outcome
from rankd.load.summary import summarise
from rankd_service.app import build
from rankd_service.domain import DegradeReason, Rung
from rankd_service.errors import StoreErrorKind
from rankd_service.settings_sources import load_settings
from tests.rankd.test_cli import rankd
from tests.support.bundles import echo, price, publish_bundle
from tests.support.memory_store import MemoryStore
from tests.support.server import running, until_ready


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    publish_bundle(tmp_path, "films", echo)
    publish_bundle(tmp_path, "prices", price)
    store = MemoryStore()
    store.failure = StoreErrorKind.REFUSED
    with running(build(load_settings(models={"repository": tmp_path}), store)) as address:
        until_ready(address)
        yield address


def test_a_degraded_answer_is_told_in_words(address: str) -> None:
    done = rankd("rank", "--url", address, "--user", "42", "--items", "1,2", "--model", "films")
    assert done.returncode == 0, done.stderr
    says = "degraded: the feature store is down: 2 of the candidates were scored with defaults"
    assert says in done.stdout
    assert "{" not in done.stdout


def test_a_model_that_is_not_served_is_answered_with_those_that_are(address: str, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text('{"user": "42", "item_ids": ["1"]}')
    for command in (
        ("rank", "--user", "42", "--items", "1,2"),
        ("bench", "--body", str(tmp_path / "request.json")),
    ):
        done = rankd(*command, "--url", address, "--model", "flims")
        assert done.returncode == 2, done.stderr
        assert "--model flims: unknown; did you mean 'films'? served: films, prices" in done.stderr


@pytest.fixture
def healthy(tmp_path: Path) -> Iterator[str]:
    publish_bundle(tmp_path, "films", echo)
    with running(build(load_settings(models={"repository": tmp_path}), MemoryStore())) as address:
        until_ready(address)
        yield address


def test_rows_that_are_not_stored_are_said_with_what_to_do(healthy: str) -> None:
    asked = ("rank", "--user", "nobody", "--items", "1,2", "--context", "hour=7", "--context", "device=phone")
    done = rankd(*asked, "--url", healthy.removeprefix("http://"))
    assert done.returncode == 0, done.stderr
    assert "user nobody: no stored row, the schema's defaults were used" in done.stdout
    assert "(features_missing); run `rankd features import`" in done.stdout
    wrong = rankd("rank", "--user", "1", "--items", "1", "--context", "hour=seven", "--url", healthy)
    assert wrong.returncode == 1
    assert "context.hour" in wrong.stderr


def test_bench_takes_the_only_model_and_fits_80_columns(healthy: str, tmp_path: Path) -> None:
    body = tmp_path / "request.json"
    body.write_text('{"user": "42", "item_ids": ["1"]}')
    asked = ("bench", "--body", str(body), "--rate", "20,40", "--seconds", "1")
    done = rankd(*asked, "--url", healthy.removeprefix("http://"), "--slo", "p99=1000")
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()[:3]
    assert header.split()[:2] == ["asked/s", "good/s"]
    assert [row.split()[0] for row in rows] == ["20", "40"]
    assert len(header) <= 80
    assert "slack: ms of the deadline" in done.stdout
    assert "answers at 40/s: 200 " in done.stdout


def test_bench_stops_at_a_first_request_that_is_refused(healthy: str, tmp_path: Path) -> None:
    body = tmp_path / "request.json"
    body.write_text('{"user": "42", "item_ids": ["1"], "top": 3}')
    done = rankd("bench", "--body", str(body), "--url", healthy)
    assert done.returncode == 1
    assert done.stderr == "error: SCHEMA: unknown key; did you mean 'top_k'? (field top)\n"
    assert "asked/s" not in done.stdout
    body.write_text('{"user": "42", "item_ids": ["1"]}')
    done = rankd("bench", "--body", str(body), "--url", healthy, "--deadline-ms", "1000000")
    assert done.returncode == 1
    assert "deadline" in done.stderr.lower()


def test_a_goal_without_any_answer_is_said_in_words() -> None:
    summary = summarise([Outcome(0.0, 0.0, 0.001, 503)], rate=1, seconds=1, deadline_ms=250)
    (line,) = missed(summary, {"p99": 20})
    assert line == "at 1 requests a second no request was answered; the goal is p99=20"


def test_every_reason_and_every_rung_has_words() -> None:
    assert REASONS.keys() == {reason.value for reason in DegradeReason}
    assert RUNGS.keys() == {rung.value for rung in Rung}


def test_ids_that_look_like_markup_are_shown_as_they_are(healthy: str) -> None:
    done = rankd("rank", "--user", ":x:", "--items", ":dog:,[red]50,[/b],100", "--url", healthy)
    assert done.returncode == 0, done.stderr
    for item in (":dog:", "[red]50", "[/b]", "100"):
        assert f"{item}  (NOT_FOUND)" in done.stdout
    assert "user :x: no stored row" in done.stdout.replace("::", ":")


@pytest.mark.parametrize(
    ("score", "shown"), [(0.5, "0.5000"), (0.001, "0.0010"), (2.98e-8, "2.980e-08"), (0.0, "0.0000")]
)
def test_scores_of_rare_events_are_shown_with_digits(score: float, shown: str) -> None:
    assert shown_score(score) == shown
