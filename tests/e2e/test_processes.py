"""Servers of several processes, and one that is loaded anew while streams are open."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from tests.e2e.client import EventStream
from tests.e2e.publisher import Publisher
from tests.e2e.servers import Server, site_env
from tests.processes import ROOT, Process, accepts, free_port

TOPIC = "blog.entry"
#: Streams that are opened at most until each of two processes has one: who accepts a connection is the kernel's choice.
MANY = 60
LIMIT = 60.0
SETTINGS = {
    "LIVEFEED_MAX_CONNECTIONS_PER_USER": 0,
    "LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS": 0,
    "LIVEFEED_CONNECTS_PER_MINUTE": 0,
}


def told(reader: EventStream) -> list[int]:
    return [block.data["n"] for block in reader.events]


def serving(database_url: str) -> int:
    """Return how many processes have a stream open, as the cluster's leases tell."""
    connection = sqlite3.connect(database_url.removeprefix("sqlite:///"), timeout=20)
    try:
        (count,) = connection.execute("SELECT count(DISTINCT process) FROM livefeed_lease").fetchone()
        return int(count)
    finally:
        connection.close()


class Preloaded(Process):
    """A server that loads the site before it forks."""

    def __init__(self, directory: Path, env: Mapping[str, str]) -> None:
        self.port = free_port()
        super().__init__(
            f"a preloaded server on port {self.port}",
            [sys.executable, "-m", "tests.e2e.preload", str(self.port)],
            log=directory / "preloaded.log",
            ready=lambda: accepts(self.port),
            env=env,
        )


def with_workers(kind: str, directory: Path, env: Mapping[str, str]) -> Server:
    return Server(kind, directory, env=env, options=["--workers", "2"])


@pytest.mark.parametrize("kind", ["uvicorn", "granian", "preloaded"])
async def test_every_worker_of_a_server_serves_every_event(kind: str, sqlite_url: str, tmp_path: Path) -> None:
    env = site_env(database_url=sqlite_url, settings=SETTINGS)
    server = Preloaded(tmp_path, env) if kind == "preloaded" else with_workers(kind, tmp_path, env)
    async with AsyncExitStack() as stack:
        stack.enter_context(server)
        publisher = await stack.enter_async_context(Publisher(env))
        readers: list[EventStream] = []
        while len(readers) < MANY and (len(readers) < 4 or serving(sqlite_url) < 2):
            reader = EventStream(f"http://127.0.0.1:{server.port}", [TOPIC])
            readers.append(await stack.enter_async_context(reader))
            await reader.opened()
        assert serving(sqlite_url) == 2
        for n in range(10):
            await publisher.publish(TOPIC, n)
        for reader in readers:
            await reader.until(lambda reader=reader: len(reader.events) >= 10, what="everything has come", limit=20)
            assert told(reader) == list(range(10))


async def touch_until_ended(module: Path, reader: EventStream) -> None:
    """Change a file until runserver has noticed: what changes before its first look at the files, it does not."""
    async with asyncio.timeout(LIMIT):
        while not reader.ends:
            await asyncio.to_thread(module.touch)
            with suppress(AssertionError):
                await reader.until(lambda: reader.ends, what="the stream was cut", limit=5)


async def test_streams_come_back_when_runserver_loads_the_site_anew_and_nothing_is_lost(
    sqlite_url: str, tmp_path: Path
) -> None:
    module = tmp_path / "settings_that_change.py"
    module.write_text("from project.settings import *\n")
    env = {
        **site_env(database_url=sqlite_url),
        "DJANGO_SETTINGS_MODULE": module.stem,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
    }
    port = free_port()
    runserver = Process(
        "runserver",
        [sys.executable, "manage.py", "runserver", str(port)],
        log=tmp_path / "runserver.log",
        ready=lambda: accepts(port),
        env=env,
    )
    async with AsyncExitStack() as stack:
        stack.enter_context(runserver)
        publisher = await stack.enter_async_context(Publisher(env))
        readers = [await stack.enter_async_context(EventStream(f"http://127.0.0.1:{port}", [TOPIC])) for _ in range(3)]
        await asyncio.gather(*(reader.opened() for reader in readers))
        await publisher.publish(TOPIC, 1)
        for reader in readers:
            await reader.until(lambda reader=reader: told(reader) == [1], what="the first event has come")
            reader.retry = 0.2
        await touch_until_ended(module, readers[0])
        await publisher.publish(TOPIC, 2)
        for reader in readers:
            await reader.until(lambda reader=reader: len(reader.own("open")) > 1, what="a stream is back")
        await publisher.publish(TOPIC, 3)
        for reader in readers:
            await reader.until(lambda reader=reader: 3 in told(reader), what="the last event has come")
            assert told(reader) == [1, 2, 3]
            assert not reader.own("reset")
