"""What comes after a body, or behind a request that is not answered yet."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from rankd_service.errors import RejectReason
from rankd_service.surfaces.protocol import Bounds
from tests.service.surfaces.one_connection import request, told, written

CHUNKED = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n"


def test_what_comes_after_a_body_is_no_header() -> None:
    """Trailers would stand in for the deadline and the id that the head gave, or add to it without end."""
    heads: list[Mapping[bytes, bytes]] = []

    def door(method: bytes, path: bytes, headers: Mapping[bytes, bytes], waited_s: float) -> bytes | None:
        heads.append(headers)
        return None

    said = asyncio.run(told(CHUNKED + b"x-deadline-ms: 1\r\n\r\n", request("/"), bounds=Bounds(door=door)))
    assert written(said).count(b"HTTP/1.1 200") == 2
    assert heads[0] == {b"host": b"x", b"transfer-encoding": b"chunked"}
    assert b"x-deadline-ms" not in heads[1]


@pytest.mark.parametrize("piece", [b"a: b\r\n" * 5000, b"x" * 30_000], ids=["many", "one name"])
def test_trailers_without_end_are_refused_at_the_limit_of_heads(piece: bytes) -> None:
    rejected: list[RejectReason] = []
    said = asyncio.run(told(CHUNKED, *[piece] * 5, bounds=Bounds(rejected=rejected.append)))
    assert rejected == [RejectReason.HEADERS]
    assert written(said).startswith(b"HTTP/1.1 431")
    assert said[-1] == "close"


def test_a_body_in_many_pieces_is_no_endless_trailer() -> None:
    pieces = [b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"]
    pieces += [b"1000\r\n" + b"x" * 4096 + b"\r\n"] * 40
    said = asyncio.run(told(*pieces, b"0\r\n\r\n"))
    assert written(said).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(("size", "number", "status"), [(1, 20_000, 400), (1, 900, 200), (64, 20_000, 200)])
def test_a_body_is_not_gathered_byte_by_byte(size: int, number: int, status: int) -> None:
    rejected: list[RejectReason] = []
    head = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    chunks = (b"%x\r\n" % size + b"x" * size + b"\r\n") * number
    pieces = [chunks[at : at + 60_000] for at in range(0, len(chunks), 60_000)]
    said = asyncio.run(told(head, *pieces, b"0\r\n\r\n", bounds=Bounds(rejected=rejected.append)))
    assert written(said).startswith(b"HTTP/1.1 %d" % status)
    assert rejected == ([RejectReason.MALFORMED] if status == 400 else [])


def test_a_refusal_is_not_taken_for_the_answer_of_an_earlier_request() -> None:
    rejected: list[RejectReason] = []
    said = asyncio.run(told(request("/") + b"garbage\r\n\r\n", bounds=Bounds(rejected=rejected.append)))
    assert rejected == [RejectReason.MALFORMED]
    assert written(said).count(b"HTTP/1.1") == 1
    assert written(said).startswith(b"HTTP/1.1 200")
    assert said[-1] == "close", "what else comes cannot be told apart"


def test_without_memory_for_them_bodies_are_not_gathered() -> None:
    rejected: list[RejectReason] = []
    short = [False]
    bounds = Bounds(rejected=rejected.append, short=lambda: short[0])
    head = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 8\r\n\r\n"

    assert written(asyncio.run(told(head + b"bodybody", bounds=bounds))).startswith(b"HTTP/1.1 200")
    short[0] = True
    said = asyncio.run(told(head + b"body", b"body", bounds=bounds))
    assert rejected == [RejectReason.MEMORY]
    assert written(said).startswith(b"HTTP/1.1 503")
    assert b"retry-after: 1" in written(said)
    assert said[-1] == "close"
