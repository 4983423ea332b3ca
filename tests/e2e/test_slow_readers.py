"""Readers that stop reading, under real servers: each costs a position, and not what it has not read.

The wire between a slow reader and its server is stalled: it takes what a kernel takes, and nothing more. What is
published meanwhile is several times what a tail may hold here.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest

from tests.e2e.client import EventStream
from tests.e2e.publisher import Publisher
from tests.e2e.servers import Server, serve
from tests.e2e.wire import Wire
from tests.processes import poll

KINDS = ["daphne", "uvicorn"]
MIB = 1024 * 1024
TAIL_BYTES = MIB
EVENT_BYTES = 32 * 1024
#: Events that are more than the kernel's buffers hold on the whole wire.
EVENTS = 500
SLOW_READERS = 3
LIMIT = 60.0


@pytest.fixture(scope="module")
def servers(_prepared_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """A server of each kind, on one database."""
    directory = tmp_path_factory.mktemp("slow-readers")
    url = f"sqlite:///{shutil.copy(_prepared_sqlite, directory / 'site.sqlite3')}"
    settings = {"LIVEFEED_TAIL_BYTES": TAIL_BYTES}
    with ExitStack() as stack:
        yield {kind: stack.enter_context(serve(kind, directory, database_url=url, settings=settings)) for kind in KINDS}


@pytest.fixture
async def publisher(servers: dict[str, Server]) -> AsyncIterator[Publisher]:
    async with Publisher(servers["daphne"].env) as publisher:
        yield publisher


def resident(server: Server) -> int:
    """Return the bytes of memory that a server process has."""
    return _memory(server, "VmRSS")


def peak(server: Server) -> int:
    """Return the most bytes of memory that a server process ever had."""
    return _memory(server, "VmHWM")


def _memory(server: Server, name: str) -> int:
    match = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def told(reader: EventStream) -> list[int]:
    return [block.data["n"] for block in reader.events]


@pytest.mark.parametrize("kind", KINDS)
async def test_readers_that_stop_reading_for_a_while_cost_no_memory_and_lose_nothing(
    kind: str, servers: dict[str, Server], publisher: Publisher, record_property: Callable[[str, object], None]
) -> None:
    server, topic, events = servers[kind], f"blog.entry:{kind}-stalled", 700
    async with AsyncExitStack() as stack:
        wire = stack.enter_context(Wire(server.port))
        urls = [server.url, *[wire.url] * SLOW_READERS]
        readers = [await stack.enter_async_context(EventStream(url, [topic])) for url in urls]
        quick, *slow = readers
        await asyncio.gather(*(reader.opened() for reader in readers))
        before = resident(server)
        await asyncio.to_thread(wire.stall)
        await publisher.publish(topic, *range(events), size=EVENT_BYTES)
        await quick.until(lambda: len(quick.events) >= events, what="the quick reader has everything")
        grown = peak(server) - before
        published = events * EVENT_BYTES
        record_property("published", f"{published / MIB:.0f} MiB, which {SLOW_READERS} readers did not read")
        record_property("grown by", f"{grown / MIB:.1f} MiB, of which tails at most {TAIL_BYTES / MIB:.0f} MiB")
        assert grown < published, "less than a queue for one of the readers would hold"
        assert all(len(reader.events) < events for reader in slow)

        await asyncio.to_thread(wire.mend)
        await publisher.publish(topic, events)
        for reader in readers:
            await reader.until(lambda reader=reader: len(reader.events) > events, what="a reader has everything")
            assert told(reader) == list(range(events + 1))
            assert not reader.ends
            assert not reader.own("reset")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_reader_that_the_retention_passed_meanwhile_is_reset_and_goes_on(
    kind: str, servers: dict[str, Server], publisher: Publisher
) -> None:
    server, topic = servers[kind], f"blog.entry:{kind}-passed"
    async with AsyncExitStack() as stack:
        wire = stack.enter_context(Wire(server.port))
        slow = await stack.enter_async_context(EventStream(wire.url, [topic]))
        quick = await stack.enter_async_context(EventStream(server.url, [topic]))
        await asyncio.gather(slow.opened(), quick.opened())
        await asyncio.to_thread(wire.stall)
        await publisher.publish(topic, *range(EVENTS), size=EVENT_BYTES)
        await quick.until(lambda: len(quick.events) >= EVENTS, what="the quick reader has everything")
        await publisher.prune(keep=5)

        await asyncio.to_thread(wire.mend)
        await slow.until(lambda: slow.own("reset"), what="the slow reader is reset")
        (reset,) = slow.own("reset")
        got = told(slow)
        assert (reset.data["reason"], reset.data["cursor"]) == ("trimmed", reset.id)
        assert got == list(range(len(got)))
        assert len(got) < EVENTS
        await publisher.publish(topic, EVENTS)
        for reader in (slow, quick):
            await reader.until(lambda reader=reader: told(reader)[-1] == EVENTS, what="a reader goes on")
        assert told(slow) == [*got, EVENTS]
        assert told(quick) == list(range(EVENTS + 1))
        assert not slow.ends
        assert not quick.own("reset")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_reader_that_never_reads_is_disconnected_and_its_place_is_free(
    kind: str, sqlite_url: str, tmp_path: Path
) -> None:
    topic = "blog.entry:never"
    settings = {"LIVEFEED_SEND_TIMEOUT": 0.5}
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serve(kind, tmp_path, database_url=sqlite_url, settings=settings))
        publisher = await stack.enter_async_context(Publisher(server.env))
        wire = stack.enter_context(Wire(server.port))
        slow = await stack.enter_async_context(EventStream(wire.url, [topic], reconnect=False))
        await slow.opened()
        assert leases(sqlite_url) == 1
        await asyncio.to_thread(wire.stall)
        await publisher.publish(topic, *range(EVENTS), size=EVENT_BYTES)
        await asyncio.to_thread(poll, lambda: not leases(sqlite_url), limit=LIMIT, what="the place is free")
        await asyncio.to_thread(wire.mend)
        await slow.until(lambda: slow.ends, what="the connection has ended")
        assert len(slow.events) < EVENTS


def leases(database_url: str) -> int:
    """Return how many connections the cluster counts."""
    connection = sqlite3.connect(database_url.removeprefix("sqlite:///"), timeout=20)
    try:
        (count,) = connection.execute("SELECT count(*) FROM livefeed_lease").fetchone()
        return int(count)
    finally:
        connection.close()
