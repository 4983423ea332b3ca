"""Two server processes share a limit, and one that is killed holds its places for the time of a lease only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.e2e.client import EventStream
from tests.e2e.servers import Server, site_env

TOPIC = "blog.entry"
LEASE_SECONDS = 3.0
SETTINGS = {"LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS": 2, "LIVEFEED_LEASE_SECONDS": LEASE_SECONDS}
#: Seconds that a client may need to notice that a place is free; it tries again five times a second.
LIMIT = 60.0

PLACES = [
    pytest.param(("sqlite_url", False), id="sqlite"),
    pytest.param(("demo_postgres_url", False), id="postgres", marks=pytest.mark.needs("postgres")),
    pytest.param(("sqlite_url", True), id="redis", marks=pytest.mark.needs("redis")),
]


@pytest.fixture(params=PLACES)
def env(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of a site that keeps its leases here or there."""
    database, in_redis = request.param
    settings: dict[str, object] = dict(SETTINGS)
    if in_redis:
        settings["LIVEFEED_LEASES"] = "livefeed.leases.redis.RedisLeases"
        settings["LIVEFEED_REDIS"] = request.getfixturevalue("redis_url")
        settings["LIVEFEED_PREFIX"] = "e2e-leases"
    return site_env(database_url=request.getfixturevalue(database), settings=settings)


def reader(server: Server, **options: bool) -> EventStream:
    return EventStream(server.url, [TOPIC], **options)  # type: ignore[arg-type]


async def is_refused(server: Server) -> bool:
    async with reader(server, reconnect=False) as stream:
        await stream.until(lambda: stream.ends or stream.blocks, what="there is an answer")
        return stream.ends == ["429"]


async def until_let_in(server: Server, stack: AsyncExitStack) -> EventStream:
    waiting = reader(server)
    waiting.retry = 0.2
    await stack.enter_async_context(waiting)
    await waiting.until(lambda: waiting.own("open"), what="a place is free", limit=LIMIT)
    return waiting


async def test_two_processes_share_a_limit_and_a_killed_one_keeps_nobody_out_for_long(
    env: dict[str, str], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    async with AsyncExitStack() as stack:
        one, two = (stack.enter_context(Server("uvicorn", tmp_path, env=env)) for _ in range(2))
        for server in (one, two):
            await (await stack.enter_async_context(reader(server, reconnect=False))).opened()
        assert await is_refused(one)
        assert await is_refused(two)

        one.kill()
        killed = time.monotonic()
        await until_let_in(two, stack)
        record_property("seconds until the place of a killed process was free", round(time.monotonic() - killed, 1))
        assert await is_refused(two)
        assert not two.trouble()


async def test_whoever_comes_while_many_do_is_counted_once_over_both_processes(
    env: dict[str, str], tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        servers = [stack.enter_context(Server("uvicorn", tmp_path, env=env)) for _ in range(2)]
        crowd = [reader(servers[number % 2], reconnect=False) for number in range(20)]
        for stream in crowd:
            await stack.enter_async_context(stream)
        for stream in crowd:
            await stream.until(lambda stream=stream: stream.ends or stream.blocks, what="there is an answer")
        assert sum(bool(stream.own("open")) for stream in crowd) == 2
        assert [stream.ends for stream in crowd if not stream.own("open")] == [["429"]] * 18
        await asyncio.gather(*(stream.__aexit__(None, None, None) for stream in crowd))
        await until_let_in(servers[0], stack)
        await until_let_in(servers[1], stack)
        assert not [line for server in servers for line in server.trouble()]
