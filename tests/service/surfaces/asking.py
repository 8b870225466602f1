"""Requests as bytes, right and wrong ones, and what every refusal must be."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.service.conftest import Service

SECRET = "s3cr3t-value"
GOOD = {"user": "42", "item_ids": ["1", "2"]}
JSON = {"content-type": "application/json"}


def sent(service: Service, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    return service.client.post("/v1/rank/films", content=body, headers={**JSON, **(headers or {})})


def with_body(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def items(*entries: Any) -> bytes:
    return json.dumps({"user": "42", "items": list(entries)}).encode()


def assert_refused(answer: httpx.Response, status: int, code: str, field: str | None = None) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert error.get("field") == field
    assert error["request_id"] == answer.headers["x-request-id"]
    assert error["retryable"] is (status == 503)
    assert error["message"]
    assert SECRET not in answer.text


def raw(service: Service, head: str, body: bytes = b"") -> socket.socket:
    address = urlsplit(service.address)
    assert address.hostname is not None
    assert address.port is not None
    connection = socket.create_connection((address.hostname, address.port), timeout=10)
    lines = f"POST /v1/rank/films HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{head}\r\n\r\n"
    connection.sendall(lines.encode() + body)
    return connection


def everything(connection: socket.socket) -> bytes:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def takes_less_than(limit_s: float, action: Callable[[], Any], tries: int = 30) -> bool:
    """Tell whether the quickest of some runs is quick enough: other work on the machine slows the rest."""
    for _ in range(tries):
        started = time.perf_counter()
        action()
        if time.perf_counter() - started < limit_s:
            return True
    return False
