"""What 200 open streams of signed-in users cost a server process: no thread and no database connection."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.e2e.client import EventStream, new_client
from tests.e2e.servers import Server, serve, site_env
from tests.processes import run

pytestmark = [pytest.mark.needs("postgres"), pytest.mark.timeout(300)]

STREAMS = 200
SETTLE_LIMIT = 30.0
STEADY_SAMPLES = 15
SAMPLE_SECONDS = 0.2


class Held(NamedTuple):
    """What a server process holds at one moment."""

    threads: int
    connections: int


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
async def test_two_hundred_streams_hold_no_more_threads_and_database_connections_than_one(
    kind: str, demo_postgres_url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    env = site_env(database_url=demo_postgres_url)
    people = json.loads(run([sys.executable, "-m", "tests.e2e.sign_in", str(STREAMS)], env=env))
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serve(kind, tmp_path, database_url=demo_postgres_url))
        database = await stack.enter_async_context(await psycopg.AsyncConnection.connect(demo_postgres_url))
        client = await stack.enter_async_context(new_client())

        async def open_for(person: dict[str, object]) -> None:
            topics = ["blog.entry", f"notice:{person['user']}"]
            cookies = {"sessionid": str(person["session"])}
            reader = await stack.enter_async_context(EventStream(server.url, topics, cookies=cookies, client=client))
            await reader.opened()
            assert reader.own("open")[0].data["topics"] == topics

        with_none = await steady(server, database)
        await open_for(people[0])
        with_one = await steady(server, database)
        for person in people[1:]:
            await open_for(person)
        with_all = await steady(server, database, at_most=with_one)

        for name, held in (("none", with_none), ("one", with_one), (str(STREAMS), with_all)):
            record_property(f"held with {name}", held)
            print(f"{kind} with {name} open: {held.threads} threads, {held.connections} database connections")
        assert with_all.threads <= with_one.threads
        assert with_all.connections <= with_one.connections


async def steady(server: Server, database: psycopg.AsyncConnection, *, at_most: Held | None = None) -> Held:
    """Return the most that is held over some seconds.

    With `at_most` the process gets some time to give back what it took for opening the streams.
    """
    deadline = time.monotonic() + SETTLE_LIMIT
    while True:
        samples = [await sample(server, database) for _ in range(STEADY_SAMPLES)]
        most = Held(max(held.threads for held in samples), max(held.connections for held in samples))
        within = at_most is None or (most.threads <= at_most.threads and most.connections <= at_most.connections)
        if within or time.monotonic() > deadline:
            return most


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
