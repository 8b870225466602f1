"""`rankd features` against a real store."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.rankd.test_cli import rankd
from tests.support.bundles import echo, publish_bundle, user_rows
from tests.support.valkey import Valkey

pytestmark = pytest.mark.redis


def test_a_stored_row_is_shown_and_its_numbers_are_called_encoded(tmp_path: Path) -> None:
    schema = publish_bundle(tmp_path / "bundles", "films", echo).schema
    (tmp_path / "store").mkdir()
    with Valkey(tmp_path / "store") as server:
        with server.client() as client:
            client.mset(user_rows(schema, ["42"], time.time()))
        place = ("--repository", str(tmp_path / "bundles"), "--redis-url", server.url)
        done = rankd("features", "get", "user", "42", "--model", "films", *place)
    assert done.returncode == 0, done.stderr
    assert "PRESENT" in done.stdout
    assert done.stderr == "numbers are as encoded: what the field's transforms made of them\n"
