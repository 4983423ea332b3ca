"""How long the kernel waits for word from a client. That it is told so by servers is in tests/e2e/test_decisions.py."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import uvloop

from livefeed import sockets
from livefeed.conf import MOST_SECONDS
from livefeed.sockets import MOST, give_up_after

OPTION = getattr(socket, "TCP_USER_TIMEOUT", 0)

pytestmark = pytest.mark.skipif(not OPTION, reason="the kernel has no such option")


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6])
def connection(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.socket(request.param) as connection:
        yield connection


def patience(connection: socket.socket) -> int:
    return connection.getsockopt(socket.IPPROTO_TCP, OPTION)


@pytest.mark.parametrize(("seconds", "milliseconds"), [(60.0, 60_000), (0.5, 500), (0, 0), (MOST_SECONDS, MOST)])
def test_the_kernel_waits_for_so_long(connection: socket.socket, seconds: float, milliseconds: int) -> None:
    give_up_after(connection, seconds)
    assert patience(connection) == milliseconds


def test_what_is_no_connection_of_tcp_is_left_alone(connection: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = socket.socketpair()
    with one, two:
        give_up_after(one, 60.0)
    give_up_after(None, 60.0)
    monkeypatch.setattr(sockets, "USER_TIMEOUT", None)  # another system
    give_up_after(connection, 60.0)
    assert patience(connection) == 0


def test_a_client_that_has_left_is_no_error(connection: socket.socket) -> None:
    connection.close()
    give_up_after(connection, 60.0)


@pytest.mark.parametrize("runner", [asyncio.Runner, partial(asyncio.Runner, loop_factory=uvloop.new_event_loop)])
def test_nor_is_one_whose_connection_a_loop_has_closed(runner: Any) -> None:
    async def leave() -> None:
        loop = asyncio.get_running_loop()
        came: asyncio.Future[asyncio.StreamWriter] = loop.create_future()
        async with await asyncio.start_server(lambda _, writer: came.set_result(writer), "127.0.0.1", 0) as server:
            _, client = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer = await came
            connection = writer.get_extra_info("socket")
            for each in (client, writer):
                each.transport.abort()
            await asyncio.sleep(0.05)
        give_up_after(connection, 60.0)
        with pytest.raises((OSError, ValueError)):
            connection.setsockopt(socket.IPPROTO_TCP, OPTION, 1)

    with runner() as running:
        running.run(leave())
