"""The design's fourth decision under real servers: what `livefeed.asgi.wrap()` brings that a Django view can't.

This module is also the ASGI application that the servers run: the demo, and beside it streams that misbehave.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from django.core.asgi import get_asgi_application

from livefeed.asgi import wrap
from tests.e2e.client import EventStream, new_client
from tests.e2e.servers import Server, blog_post, site_env
from tests.processes import poll

KINDS = ["daphne", "uvicorn"]
LIMIT = 30.0
CHUNKS = 30_000
CHUNK_BYTES = 1_000
#: More than the kernel's buffers on both sides hold, much less than all.
STALLED = 12_000
SAME_READINGS = 5
READING_SECONDS = 0.1


# -- the application --------------------------------------------------------------------------------------------------

STATE = {"sent": 0, "open": 0}
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}


async def _site(scope: Any, receive: Any, send: Any) -> None:
    routes = {"/broken/": _broken, "/unfinished/": _unfinished, "/flood/": _flood}
    routes |= {"/state/": _state, "/patience/": _patience}
    if scope["type"] == "http" and scope["path"] in routes:
        await routes[scope["path"]](send)
    else:
        await _django()(scope, receive, send)


@cache
def _django() -> Any:
    return get_asgi_application()


async def _broken(send: Any) -> None:
    await _unfinished(send)
    raise ZeroDivisionError("on purpose")


async def _unfinished(send: Any) -> None:
    await send(START)
    await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})


async def _flood(send: Any) -> None:
    STATE["sent"], STATE["open"] = 0, 1
    try:
        await send(START)
        for number in range(CHUNKS):
            body = f"data: {number} ".encode().ljust(CHUNK_BYTES - 2, b".") + b"\n\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})
            STATE["sent"] += 1
            if number % 100 == 0:
                await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        STATE["open"] = 0


async def _state(send: Any) -> None:
    await _answer(send, STATE)


async def _patience(send: Any) -> None:
    """Tell for how many milliseconds the kernel waits for word from the clients of this process, where it was told."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(number))) as connection:
            found.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
    await _answer(send, sorted(filter(None, found)))


async def _answer(send: Any, data: object) -> None:
    await send({**START, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(data).encode()})


application = wrap(_site)


# -- its clients ------------------------------------------------------------------------------------------------------


@contextmanager
def served(kind: str, directory: Path, *, database_url: str, send_timeout: float = 60.0) -> Iterator[Server]:
    env = site_env(database_url=database_url, settings={"LIVEFEED_SEND_TIMEOUT": send_timeout})
    with Server(kind, directory, env=env, application="tests.e2e.test_decisions:application") as server:
        yield server


async def state(server: Server) -> dict[str, int]:
    async with new_client() as client:
        found: dict[str, int] = (await client.get(f"{server.url}/state/")).json()
        return found


@asynccontextmanager
async def client_that_does_not_read(server: Server, path: str) -> AsyncIterator[socket.socket]:
    """Connect and ask, with a small buffer, and read nothing."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", server.port))
        await loop.sock_sendall(client, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        yield client


async def standstill(server: Server) -> int:
    """Return how many chunks were sent when no more are."""
    readings: list[int] = []
    async with asyncio.timeout(LIMIT):
        while len(readings) < SAME_READINGS or len(set(readings[-SAME_READINGS:])) > 1 or not readings[-1]:
            readings.append((await state(server))["sent"])
            await asyncio.sleep(READING_SECONDS)
    return readings[-1]


async def read_to_the_end(client: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    parts = []
    async with asyncio.timeout(LIMIT):
        while part := await loop.sock_recv(client, 1 << 20):
            parts.append(part)
            if part.endswith(b"0\r\n\r\n"):
                break
    return b"".join(parts)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_does_not_read_stops_its_stream_and_loses_nothing(
    kind: str, sqlite_url: str, tmp_path: Path
) -> None:
    with served(kind, tmp_path, database_url=sqlite_url) as server:
        async with client_that_does_not_read(server, "/flood/") as client:
            assert 0 < await standstill(server) < STALLED
            text = await read_to_the_end(client)
        assert text.count(b"data: ") == CHUNKS
        assert f"data: {CHUNKS - 1} ".encode() in text
        assert (await state(server)) == {"sent": CHUNKS, "open": 0}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_never_reads_is_disconnected(kind: str, sqlite_url: str, tmp_path: Path) -> None:
    with served(kind, tmp_path, database_url=sqlite_url, send_timeout=0.5) as server:
        async with client_that_does_not_read(server, "/flood/") as client:
            await asyncio.to_thread(poll, lambda: _has_ended(server), limit=LIMIT, what="the stream has ended")
            text = await read_until_cut(client)
        assert text.count(b"data: ") < STALLED, "it was cut off from what it did not read"


def _has_ended(server: Server) -> bool:
    found = asyncio.run(state(server))
    return bool(found["sent"] and not found["open"])


@pytest.mark.parametrize("kind", KINDS)
async def test_the_kernel_waits_no_longer_for_word_from_a_client_than_for_one_that_does_not_read(
    kind: str, sqlite_url: str, tmp_path: Path
) -> None:
    with served(kind, tmp_path, database_url=sqlite_url, send_timeout=7.5) as server:
        async with EventStream(server.url, ["blog.entry"], reconnect=False) as reader, new_client() as client:
            await reader.opened()
            assert (await client.get(f"{server.url}/patience/")).json() == [7500]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_that_fails_ends_and_harms_no_other(kind: str, sqlite_url: str, tmp_path: Path) -> None:
    with served(kind, tmp_path, database_url=sqlite_url) as server:
        async with EventStream(server.url, ["blog.entry"], reconnect=False) as before:
            await before.opened()
            for path in ["/broken/", "/unfinished/"] * 3:
                async with client_that_does_not_read(server, path) as client:
                    await read_until_cut(client)
            async with EventStream(server.url, ["blog.entry"], reconnect=False) as after:
                await after.opened()
                await asyncio.to_thread(blog_post, "Still there", env=server.env)
                for reader in (before, after):
                    await reader.until(lambda reader=reader: reader.events, what="the entry arrives")
                    assert reader.events[-1].data["title"] == "Still there"
    assert "HTTP response has already been started" not in server.log()


async def read_until_cut(client: socket.socket) -> bytes:
    """Read until the server closes or resets the connection; a TimeoutError where it leaves it open."""
    loop = asyncio.get_running_loop()
    parts = []
    async with asyncio.timeout(LIMIT):
        with suppress(ConnectionResetError):
            while part := await loop.sock_recv(client, 1 << 16):
                parts.append(part)
    return b"".join(parts)
