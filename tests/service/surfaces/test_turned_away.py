"""Who is turned away at the door, and what becomes of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
import uvicorn

from rankd_service.surfaces import protocol as protocol_module
from rankd_service.surfaces.protocol import BoundedProtocol, Bounds
from rankd_service.surfaces.pushback import Pushback
from tests.service.surfaces.one_connection import Recording, app, opened, request, told, written

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


def test_a_request_behind_one_that_is_being_answered_is_answered_after_it() -> None:
    said = written(asyncio.run(told(request("/") + request("/echo"), bounds=shut_to(b"/echo"))))
    assert said.index(b"\r\n\r\nbody") < said.index(b"HTTP/1.1 200", 20)


@pytest.mark.parametrize("asked_before", [False, True])
def test_a_request_on_its_way_when_the_process_ends_is_answered(
    asked_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol_module, "_LAST_CALL_S", 0.05)

    async def ends() -> tuple[list[bytes | str], list[bytes | str]]:
        connection, transport = opened()
        idle, nobody = opened()
        if asked_before:
            connection.data_received(request("/"))
            await asyncio.sleep(0.01)
        connection.data_received(request("/")[:10])
        for one in (connection, idle):
            one.shutdown()
        assert not transport.is_closing()
        connection.data_received(request("/")[10:])
        await asyncio.sleep(0.1)
        return transport.said, nobody.said

    said, unasked = asyncio.run(ends())
    assert written(said).count(b"HTTP/1.1 200") == 1 + asked_before
    assert (said[-1], unasked) == ("close", ["close"])
