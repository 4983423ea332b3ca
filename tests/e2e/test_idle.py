"""What 200 open streams of signed-in users cost a server process: no thread and no database connection."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from tests.e2e.client import EventStream, new_client
from tests.e2e.servers import Server, serve, site_env
from tests.processes import run

pytestmark = [pytest.mark.needs("postgres"), pytest.mark.timeout(300)]

STREAMS = 200
POOL = 4  # the few threads, each with a connection, that the hub has as long as a topic is kept, read or not
SAMPLES = 10
SAMPLE_SECONDS = 0.2


class Held(NamedTuple):
    """What a server process holds: threads, and connections to the database."""

    threads: int
    connections: int


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
async def test_two_hundred_streams_hold_no_more_threads_and_database_connections_than_none(
    kind: str, demo_postgres_url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    env = site_env(database_url=demo_postgres_url)
    people = json.loads(run([sys.executable, "-m", "tests.e2e.sign_in", str(STREAMS)], env=env))
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serve(kind, tmp_path, database_url=demo_postgres_url))
        database = await stack.enter_async_context(await psycopg.AsyncConnection.connect(demo_postgres_url))
        client = await stack.enter_async_context(new_client())

        before = await held(server, database)
        async with AsyncExitStack() as streams:
            for person in people:
                await open_stream(streams, server, client, person)
            with_all = await held(server, database)
        with_none = await held(server, database)  # the hub keeps the topics for a while, for readers who come back

        for what, now in (("before the first stream", before), (f"with {STREAMS}", with_all), ("with none", with_none)):
            record_property(f"{kind} {what}", f"{now.threads} threads, {now.connections} database connections")
        assert with_all.threads <= with_none.threads, "closing streams has freed threads, so they held some"
        assert with_all.connections <= with_none.connections, "closing streams has freed connections"
        assert with_all.threads <= before.threads + POOL
        assert with_all.connections <= before.connections + POOL


async def open_stream(
    stack: AsyncExitStack, server: Server, client: httpx.AsyncClient, person: dict[str, object]
) -> None:
    """Open a signed-in person's stream of the blog and of their own notices, until the stack closes it."""
    topics = ["blog.entry", f"notice:{person['user']}"]
    cookies = {"sessionid": str(person["session"])}
    reader = await stack.enter_async_context(EventStream(server.url, topics, cookies=cookies, client=client))
    await reader.opened()
    assert reader.own("open")[0].data["topics"] == topics


async def held(server: Server, database: psycopg.AsyncConnection) -> Held:
    """Return what the process holds all the time: the least of some seconds, for it may take more for a moment."""
    samples = [await sample(server, database) for _ in range(SAMPLES)]
    return Held(min(held.threads for held in samples), min(held.connections for held in samples))


async def sample(server: Server, database: psycopg.AsyncConnection) -> Held:
    await asyncio.sleep(SAMPLE_SECONDS)
    cursor = await database.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
        [urlsplit(server.env["DATABASE_URL"]).path.lstrip("/")],
    )
    row = await cursor.fetchone()
    await database.commit()
    assert row is not None
    return Held(threads(server.pid), row[0])


def threads(pid: int) -> int:
    """Return the number of threads of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Threads:"))
