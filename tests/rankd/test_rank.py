"""`rankd rank` against a real service: words for people where something is not as it should be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rankd.cli.rank import REASONS, RUNGS
from rankd_service.app import build
from rankd_service.domain import DegradeReason, Rung
from rankd_service.errors import StoreErrorKind
from rankd_service.settings import load_settings
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


def test_every_reason_and_every_rung_has_words() -> None:
    assert REASONS.keys() == {reason.value for reason in DegradeReason}
    assert RUNGS.keys() == {rung.value for rung in Rung}
