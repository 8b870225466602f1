"""Rows C of the fault matrix: bodies too long, without end, cut off or of other media; heads without end."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from tests.service.conftest import Service
from tests.service.surfaces.asking import (
    GOOD,
    JSON,
    assert_refused,
    everything,
    raw,
    sent,
    takes_less_than,
    with_body,
)


@pytest.mark.fault("C7")
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        pytest.param({"content-type": "text/plain"}, "MEDIA_TYPE", id="C1-text"),
        pytest.param({"content-type": "application/x-www-form-urlencoded"}, "MEDIA_TYPE", id="C1-form"),
        pytest.param({"content-encoding": "gzip"}, "ENCODING", id="C7-gzip"),
        pytest.param({"content-encoding": "identity, br"}, "ENCODING", id="C7-two"),
    ],
)
def test_other_media_are_refused(service: Service, headers: dict[str, str], code: str) -> None:
    assert_refused(sent(service, b"{}", headers), 415, code)


def test_json_with_parameters_and_identity_encoding_is_read(service: Service) -> None:
    headers = {"content-type": "application/json; charset=utf-8", "content-encoding": "identity"}
    assert sent(service, with_body(), headers).status_code == 200


@pytest.mark.parametrize("length", ["99999999999", "0" * 5000 + "2"], ids=["large", "thousands-of-digits"])
def test_c5_an_announced_length_over_the_limit_is_refused_unread_and_the_connection_closed(
    service: Service, length: str
) -> None:
    with raw(service, f"Content-Length: {length}") as connection:
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"TOO_LARGE"' in answer


def test_c6_a_body_without_end_is_refused_at_the_limit(service: Service) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    sent_bytes = 0
    with raw(service, "Transfer-Encoding: chunked") as connection:
        try:
            while sent_bytes < 1 << 30:
                connection.sendall(chunk)
                sent_bytes += len(chunk)
        except OSError:
            pass
    assert sent_bytes < 16 << 20, "the service went on reading"
    assert service.rank(GOOD).status_code == 200


def test_c6_a_chunked_body_within_the_limit_is_read(service: Service) -> None:
    answer = service.client.post(
        "/v1/rank/films", content=iter([with_body()[:7], with_body()[7:]]), headers=JSON
    )
    assert answer.status_code == 200


def test_a_client_that_hangs_up_in_its_body_is_counted_and_harms_nobody(service: Service) -> None:
    before = service.metric("rankd_requests_total", model="films", code="499")
    with raw(service, "Content-Length: 100", b'{"user"'):
        pass
    waited = time.monotonic() + 5
    while service.metric("rankd_requests_total", model="films", code="499") == before:
        assert time.monotonic() < waited
    assert service.metric("rankd_inflight_requests", model="films") == 0


LONG = [
    pytest.param({**GOOD, **{f"k{i}": 1 for i in range(60_000)}}, 422, id="unknown-keys"),
    pytest.param({**GOOD, "context": {f"k{i}": None for i in range(60_000)}}, 422, id="context-fields"),
    pytest.param({**GOOD, "user": {"id": 1, "fields": {"recent": ["a"] * 150_000}}}, 422, id="values"),
    pytest.param(
        {"user": 1, "items": [{"id": i, "fields": {"item_id": "x" * (i % 1000)}} for i in range(1900)]},
        200,
        id="texts",
    ),
    pytest.param(
        {"user": 1, "items": [{"id": 1, **{f"k{i}": 1 for i in range(60_000)}}]}, 422, id="item-keys"
    ),
]


@pytest.mark.parametrize(("body", "status"), LONG)
def test_p7_no_request_holds_up_the_others_for_50_ms(service: Service, body: object, status: int) -> None:
    raw_body = json.dumps(body).encode()
    assert sent(service, raw_body).status_code == status
    assert takes_less_than(0.05, lambda: sent(service, raw_body))


def test_c19_a_head_without_end_is_refused_at_its_limit(service: Service) -> None:
    address = urlsplit(service.address)
    assert address.hostname is not None
    assert address.port is not None
    line, sent_bytes = b"X-Filler: " + b"y" * 8000 + b"\r\n", 0
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/rank/films HTTP/1.1\r\nHost: x\r\n")
        with suppress(OSError):
            while sent_bytes < 100 << 20:
                connection.sendall(line)
                sent_bytes += len(line)
    assert sent_bytes < 20 << 20
    assert service.rank(GOOD).status_code == 200
