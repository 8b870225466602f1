"""A worker's line goes on whatever happens to one answer."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from rankd_service.workers.tether import Tether


def test_metrics_that_cannot_be_read_cost_one_scrape_and_not_the_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ours, theirs = socket.socketpair()
    drained: list[float] = []
    answers: list[list[dict[str, Any]] | None] = [None, [], [{"name": "one"}]]

    def counts() -> list[dict[str, Any]]:
        answer = answers.pop(0)
        if answer is None:
            raise RuntimeError("Set changed size during iteration")
        return answer

    with ours, theirs:
        ours.sendall(b"{}\n")
        tether = Tether(theirs)
        tether.follow(counts, drained.append, lambda: None, patience_s=1e8)
        told = ours.makefile("rb")
        ours.sendall(b'{"count": true}\n{"count": true}\n{"drain": 1.5}\n{"count": true}\n')
        assert json.loads(told.readline()) == {"counts": []}, "the second"
        assert json.loads(told.readline()) == {"counts": [{"name": "one"}]}
        assert drained == [1.5]
    assert "metrics cannot be read" in caplog.text
    caplog.clear()
