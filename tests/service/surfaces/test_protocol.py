from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

import pytest
import uvicorn

from rankd_service.errors import RejectReason
from rankd_service.surfaces.protocol import BoundedProtocol, Bounds
from rankd_service.surfaces.pushback import Pushback


class Recording(asyncio.Transport):
    """What a connection was told to do, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[bytes | str] = []

    def write(self, data: Any) -> None:
        self.said.append(bytes(data))

    def close(self) -> None:
        self.said.append("close")

    def abort(self) -> None:
        self.said.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.said or "abort" in self.said

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in {"peername", "sockname"} else default

    def pause_reading(self) -> None:
        self.said.append("pause")

    def resume_reading(self) -> None:
        self.said.append("resume")


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/echo":
        return await echo(receive, send)
    await receive()
    close = [(b"connection", b"close")] if scope["path"] == "/close" else []
    length = [(b"content-length", b"4")]
    await send({"type": "http.response.start", "status": 200, "headers": length + close})
    await send({"type": "http.response.body", "body": b"body"})


async def echo(receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message.get("more_body", False)
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def told(*pieces: bytes, bounds: Bounds | None = None, wait_s: float = 0.0) -> list[bytes | str]:
    """What a connection answers to pieces of requests."""
    config = uvicorn.Config(app, http=BoundedProtocol, ws="none", log_config=None, lifespan="off")
    config.load()
    protocol = BoundedProtocol(config, uvicorn.server.ServerState(), {}, bounds=bounds)
    transport = Recording()
    protocol.connection_made(transport)
    for piece in pieces:
        protocol.data_received(piece)
        for _ in range(20):
            await asyncio.sleep(0)
    await asyncio.sleep(wait_s)
    said = list(transport.said)
    protocol.connection_lost(None)
    return said


def written(said: list[bytes | str]) -> bytes:
    return b"".join(part for part in said if isinstance(part, bytes))


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


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


SHUT = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nlate"


def shut_to(path: bytes) -> Bounds:
    return Bounds(door=lambda method, url, headers, waited_s: SHUT if url == path else None)


@pytest.mark.fault("E1")
@pytest.mark.parametrize("cut", [10, 60, 75, 500])
def test_who_is_turned_away_at_the_door_may_ask_again_on_the_same_connection(cut: int) -> None:
    body = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n" + b"x" * 20
    asked = body + body + request("/")
    said = asyncio.run(told(asked[:cut], asked[cut:], bounds=shut_to(b"/echo")))
    assert written(said).count(b"\r\n\r\nbody") == 1
    assert "close" not in said
    assert written(said).startswith(SHUT + SHUT)


def test_who_waits_to_be_let_in_before_sending_a_body_is_not_left_waiting() -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 20\r\n\r\n"
    said = asyncio.run(told(head, bounds=shut_to(b"/echo")))
    assert (written(said), said[-1]) == (SHUT, "close")


AT_ONCE = Bounds(door=lambda *of: SHUT, pushback=Pushback(most=0.0))


@pytest.mark.fault("E4")
def test_who_is_turned_away_too_often_is_not_heard_for_a_moment() -> None:
    assert asyncio.run(told(request("/"), bounds=AT_ONCE)) == ["pause", SHUT]
    assert asyncio.run(told(request("/"), bounds=AT_ONCE, wait_s=0.2)) == ["pause", SHUT, "resume"]


def test_the_door_is_told_how_long_a_request_may_have_waited_unheard() -> None:
    waited: list[float] = []

    def door(method: bytes, url: bytes, headers: Mapping[bytes, bytes], waited_s: float) -> bytes:
        waited.append(waited_s)
        return SHUT

    async def scenario() -> None:
        config = uvicorn.Config(app, http=BoundedProtocol, ws="none", log_config=None, lifespan="off")
        config.load()
        bounds = Bounds(door=door, pushback=Pushback(most=0.0))
        protocol = BoundedProtocol(config, uvicorn.server.ServerState(), {}, bounds=bounds)
        transport = Recording()
        protocol.connection_made(transport)
        protocol.data_received(request("/"))
        while "resume" not in transport.said:  # noqa: ASYNC110  # the transport is a list
            await asyncio.sleep(0)
        protocol.data_received(request("/"))  # it lay there when reading went on
        await asyncio.sleep(0.01)
        protocol.data_received(request("/"))
        protocol.connection_lost(None)

    asyncio.run(scenario())
    assert [bool(seconds) for seconds in waited] == [False, True, False]


def test_a_request_behind_one_that_is_being_answered_is_answered_after_it() -> None:
    said = written(asyncio.run(told(request("/") + request("/echo"), bounds=shut_to(b"/echo"))))
    assert said.index(b"\r\n\r\nbody") < said.index(b"HTTP/1.1 200", 20)


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


def test_who_was_turned_away_twice_and_let_in_then_keeps_the_connection() -> None:
    async def scenario() -> list[bytes | str]:
        shut = [True, True, False]
        bounds = Bounds(door=lambda *of: SHUT if shut.pop(0) else None)
        config = uvicorn.Config(
            app, http=BoundedProtocol, ws="none", log_config=None, lifespan="off", timeout_keep_alive=1
        )
        config.load()
        protocol = BoundedProtocol(config, uvicorn.server.ServerState(), {}, bounds=bounds)
        transport = Recording()
        protocol.connection_made(transport)
        protocol.data_received(request("/") * 2)
        first = protocol.timeout_keep_alive_task
        protocol.data_received(request("/"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert first is not None
        assert first.cancelled()
        said = list(transport.said)
        protocol.connection_lost(None)
        return said

    said = asyncio.run(scenario())
    assert written(said).endswith(b"body")
    assert "close" not in said


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
