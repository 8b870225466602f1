"""The client against a service that is not there; the one that is stands in tests/e2e."""

from __future__ import annotations

import pytest

from rankd.cli.process import free_port
from rankd.client import Client, RankdError


def test_nothing_listening_is_an_error_that_says_what_to_start() -> None:
    with Client(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(RankdError, match="is `rankd serve` running") as caught:
            client.rank("mlcc", "42", ["1"])
        assert caught.value.code == "UNREACHABLE"
        assert not client.ready()
