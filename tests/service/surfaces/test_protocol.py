from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
import uvicorn

from rankd_service.errors import RejectReason
from rankd_service.surfaces.protocol import BoundedProtocol, Bounds
from tests.service.surfaces.one_connection import Recording, app, request, told, written


def test_head_and_body_of_an_answer_are_one_write() -> None:
    (answer,) = [said for said in asyncio.run(told(request("/"))) if said != "close"]
    assert isinstance(answer, bytes)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\nbody")


def test_an_answer_is_written_before_its_connection_is_closed() -> None:
    answer, then = asyncio.run(told(request("/close")))[:2]
    assert isinstance(answer, bytes)
    assert answer.endswith(b"body")
    assert then == "close"


def test_pipelined_requests_are_answered_whole_and_in_order() -> None:
    said = asyncio.run(told(request("/") * 3))
    assert written(said).count(b"\r\n\r\nbody") == 3
    assert written(said).count(b"HTTP/1.1 200") == 3


def test_a_client_that_reads_nothing_stops_nobody_else() -> None:
    """A large answer to a client that does not read must wait in that client's connection alone."""

    async def large(scope: Any, receive: Any, send: Any) -> None:
        size = 20 << 20 if scope["path"] == "/large" else 4
        head = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"x" * size})

    async def scenario() -> bytes:
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(large, http=BoundedProtocol, ws="none", log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        port = listener.getsockname()[1]
        _, lazy = await asyncio.open_connection("127.0.0.1", port)
        lazy.write(request("/large"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("/"))
        answer = await reader.readuntil(b"xxxx")
        for open_one in (lazy, writer):
            open_one.close()
        server.should_exit = True
        await serving
        listener.close()
        return answer

    assert asyncio.run(scenario()).startswith(b"HTTP/1.1 200")


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"


def offering(body: bytes) -> bytes:
    """A request as Java's client and `curl --http2` send it first."""
    return b"POST /echo HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (H2C, len(body), body)


@pytest.mark.parametrize("cut", [1, 20, 150, 185, 186, 187, 190, 400])
def test_a_client_that_offers_http_2_is_answered_over_http_1_with_its_body_read(cut: int) -> None:
    whole = offering(b"{" + b" " * 50 + b"}") + request("/") + offering(b"second") + request("/")
    said = written(asyncio.run(told(whole[:cut], whole[cut:])))
    assert said.count(b"HTTP/1.1 200") == 4
    assert said.index(b"{  ") < said.index(b"\r\n\r\nbody") < said.index(b"second")


def test_an_offer_without_a_body_is_answered_too() -> None:
    said = written(asyncio.run(told(b"GET / HTTP/1.1\r\nHost: x\r\n" + H2C + b"\r\n" + request("/"))))
    assert said.count(b"\r\n\r\nbody") == 2


def test_an_offer_with_a_body_in_chunks_is_refused_with_what_to_do() -> None:
    chunked = (
        b"POST /echo HTTP/1.1\r\nHost: x\r\n" + H2C + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    )
    said = asyncio.run(told(chunked))
    assert written(said).startswith(b"HTTP/1.1 400")
    assert b"must give its Content-Length" in written(said)
    assert said[-1] == "close"


@pytest.mark.fault("C9")
@pytest.mark.parametrize(
    "sent", [b"P", b"POST /echo HTTP/1.1\r\nHost", request("/echo")[:-2] + b"Content-Length: 9\r\n\r\nhalf"]
)
@pytest.mark.fault("C8")
def test_a_request_that_does_not_arrive_in_time_is_answered_408_and_closed(sent: bytes) -> None:
    reasons: list[RejectReason] = []
    bounds = Bounds(receive_s=0.05, rejected=reasons.append)
    said = asyncio.run(told(sent, bounds=bounds, wait_s=0.2))
    assert written(said).startswith(b"HTTP/1.1 408")
    assert said[-1] == "close"
    assert reasons == [RejectReason.SLOW]


@pytest.mark.fault("C8")
def test_a_connection_on_which_nothing_comes_is_closed_without_a_word() -> None:
    said = asyncio.run(told(bounds=Bounds(receive_s=0.05), wait_s=0.2))
    assert said == ["close"]


def test_a_request_that_arrived_may_take_longer_to_answer_than_to_arrive() -> None:
    said = asyncio.run(told(request("/"), bounds=Bounds(receive_s=0.05), wait_s=0.2))
    assert said[0] != "close"
    assert written(said).startswith(b"HTTP/1.1 200")
    assert len(said) == 1, "and the connection stays open"


def test_garbage_is_refused_in_the_form_of_every_refusal() -> None:
    said = asyncio.run(told(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))
    assert b'"code":"MALFORMED"' in written(said)
    assert said[-1] == "close"


@pytest.mark.fault("C20")
def test_more_connections_than_allowed_are_told_so_and_closed() -> None:
    async def scenario() -> tuple[list[bytes | str], list[bytes | str], list[RejectReason]]:
        config = uvicorn.Config(app, http=BoundedProtocol, ws="none", log_config=None, lifespan="off")
        config.load()
        state, heard = uvicorn.server.ServerState(), list[Recording]()
        reasons: list[RejectReason] = []
        bounds = Bounds(connections=2, rejected=reasons.append)
        protocols = [BoundedProtocol(config, state, {}, bounds=bounds) for _ in range(4)]
        for protocol in protocols[:3]:
            heard.append(Recording())
            protocol.connection_made(heard[-1])
        await asyncio.sleep(0)
        for protocol in protocols[1:3]:
            protocol.connection_lost(None)
        heard.append(Recording())
        protocols[3].connection_made(heard[-1])
        protocols[3].data_received(request("/"))
        for _ in range(20):
            await asyncio.sleep(0)
        return heard[2].said, heard[3].said, reasons

    third, later, reasons = asyncio.run(scenario())
    assert written(third).startswith(b"HTTP/1.1 503")
    assert third[-1] == "close"
    assert written(later).startswith(b"HTTP/1.1 200")
    assert reasons == [RejectReason.CONNECTIONS]


def test_any_number_of_offers_may_stand_in_one_packet() -> None:
    offer = b"GET / HTTP/1.1\r\nHost: x\r\n" + H2C + b"\r\n"
    said = written(asyncio.run(told(offer * 300, wait_s=0.2)))
    assert said.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("length", [b"36 ", b"36\t", b"0000000000000000000036"])
def test_a_body_behind_an_offer_is_never_read_as_a_request(length: bytes) -> None:
    inner = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\n" + H2C + b"Content-Length: " + length + b"\r\n\r\n"
    said = written(asyncio.run(told(head + inner.ljust(36)[:36])))
    assert said.count(b"HTTP/1.1 ") == 1, said


def test_a_head_that_comes_in_one_packet_is_bounded_too() -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 70_000 + b"\r\n\r\n"
    said = asyncio.run(told(head))
    assert written(said).startswith(b"HTTP/1.1 431")
    assert written(said).count(b"HTTP/1.1 ") == 1


def test_who_does_not_read_is_not_waited_for_without_end() -> None:
    async def scenario() -> list[bytes | str]:
        config = uvicorn.Config(app, http=BoundedProtocol, ws="none", log_config=None, lifespan="off")
        config.load()
        bounds = Bounds(receive_s=0.05)
        protocol = BoundedProtocol(config, uvicorn.server.ServerState(), {}, bounds=bounds)
        transport = Recording()
        protocol.connection_made(transport)
        protocol.pause_writing()
        protocol.resume_writing()
        await asyncio.sleep(0.1)
        assert "abort" not in transport.said
        protocol.pause_writing()
        await asyncio.sleep(0.1)
        protocol.connection_lost(None)
        return transport.said

    assert "abort" in asyncio.run(scenario())
