"""The client against a service that is not there; the one that is stands in tests/e2e."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from rankd.cli.process import free_port
from rankd.client import Client, RankdError


def test_nothing_listening_is_an_error_that_says_what_to_start() -> None:
    with Client(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(RankdError, match="is `rankd serve` running") as caught:
            client.rank("mlcc", "42", ["1"])
        assert caught.value.code == "UNREACHABLE"
        assert not client.ready()


def test_a_proxy_in_the_environment_is_not_asked_for_a_service_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Ready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        Thread(target=server.handle_request).start()
        with Client(f"http://127.0.0.1:{server.server_port}") as client:
            assert client.ready()


def test_a_deadline_is_known_before_the_body_is_read() -> None:
    heard: list[str | None] = []

    class Late(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.headers["X-Deadline-Ms"])
            self.send_response(503)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Late) as server:
        for deadline_ms in (0.5, None):
            asked = Thread(target=server.handle_request)
            asked.start()
            with Client(f"http://127.0.0.1:{server.server_port}") as client, pytest.raises(RankdError):
                client.rank("mlcc", "42", ["1"], deadline_ms=deadline_ms)
            asked.join()
    assert heard[0] is not None
    assert float(heard[0]) == 0.5
    assert heard[1] is None
