"""The tenth and the twelfth of the fifteen breakages of tests/test_breakages.py: they need servers and a Redis."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.e2e.client import EventStream
from tests.e2e.publisher import Publisher
from tests.e2e.servers import Server, site_env
from tests.reading import eventually
from tests.services import RedisServer

pytestmark = pytest.mark.needs("redis")

TOPIC = "blog.entry"
LAYERS = ["channels_redis.pubsub.RedisPubSubChannelLayer", "channels_redis.core.RedisChannelLayer"]
LIMIT = 30.0


def site_settings(backend: str, redis: RedisServer, **more: object) -> dict[str, object]:
    return {"CHANNEL_LAYERS": {"default": {"BACKEND": backend, "CONFIG": {"hosts": [redis.url]}}}, **more}


async def start(stack: AsyncExitStack, *servers: Server) -> list[Server]:
    """Start servers at the same time; each is stopped with the stack.

    What the layers log where Redis is away looks like trouble, so nobody reads the logs here.
    """
    for server in servers:
        stack.callback(server.stop)
    await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers))
    return list(servers)


async def readers_of(stack: AsyncExitStack, servers: Sequence[Server], *topics: str) -> list[EventStream]:
    """Open a stream of these topics on each server."""
    readers = [await stack.enter_async_context(EventStream(server.url, topics)) for server in servers]
    await asyncio.gather(*(reader.opened() for reader in readers))
    return readers


def told(reader: EventStream) -> list[int]:
    """Return what the stored events of a reader count."""
    return [block.data["n"] for block in reader.events if block.type == "tick"]


def heard(reader: EventStream) -> set[int]:
    """Return what the fleeting events of a reader count."""
    return {block.data["n"] for block in reader.events if block.type == "typing"}


async def all_have(readers: Sequence[EventStream], *ns: int) -> None:
    """Wait until each of these readers has the last of these events; it must have just these."""
    for reader in readers:
        await reader.until(lambda reader=reader: ns[-1] in told(reader), what=f"event {ns[-1]} has come")
        assert told(reader) == list(ns)


async def all_hear(readers: Sequence[EventStream], publisher: Publisher, topic: str, n: int) -> None:
    """Publish what is fleeting until each of these readers got it: who is just being written to misses it."""
    async with asyncio.timeout(LIMIT):
        while not all(n in heard(reader) for reader in readers):
            await publisher.fleeting(topic, n)
            await asyncio.sleep(0.05)


def members(redis: RedisServer) -> int:
    """Return how many members the groups on the layer have, all together."""
    from redis import Redis

    with Redis.from_url(redis.url) as client:
        pubsub = client.pubsub_numsub(*client.pubsub_channels("*__group__*"))
        return sum(count for _, count in pubsub) + sum(client.zcard(key) for key in client.scan_iter("asgi:group:*"))


@pytest.mark.parametrize("backend", LAYERS)
async def test_10_a_restart_of_redis_deafens_no_stream_neither_old_nor_new(
    backend: str, private_redis: RedisServer, sqlite_url: str, tmp_path: Path
) -> None:
    """What is fleeting comes over the layer or not at all: whoever gets it does not just look at the history."""
    env = site_env(database_url=sqlite_url, settings=site_settings(backend, private_redis))
    async with AsyncExitStack() as stack:
        servers = await start(stack, *(Server(kind, tmp_path, env=env) for kind in ("daphne", "uvicorn")))
        publisher = await stack.enter_async_context(Publisher(servers[0].env))
        old = await readers_of(stack, servers, TOPIC)
        await publisher.publish(TOPIC, 1)
        await all_have(old, 1)

        private_redis.kill()
        await publisher.publish(TOPIC, 2)
        await all_have(old, 1, 2)
        meanwhile = await readers_of(stack, servers, TOPIC)
        first = await readers_of(stack, servers, f"{TOPIC}:first")
        private_redis.start()
        await eventually(lambda: members(private_redis) >= len(servers), "both servers are on the layer", LIMIT)

        new = await readers_of(stack, servers, TOPIC)
        other = await readers_of(stack, servers, f"{TOPIC}:other")
        await all_hear([*old, *meanwhile, *new], publisher, TOPIC, 10)
        await all_hear(first, publisher, f"{TOPIC}:first", 11)
        await all_hear(other, publisher, f"{TOPIC}:other", 12)
        await publisher.publish(TOPIC, 3)
        await all_have(old, 1, 2, 3)
        await all_have([*meanwhile, *new], 3)
        everybody = [*old, *meanwhile, *first, *new, *other]
        assert not any(reader.ends or reader.own("reset") for reader in everybody)


async def test_12_two_sites_on_one_redis_never_get_each_other_s_events(
    private_redis: RedisServer, sqlite_url: str, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        serving = []
        for kind, key in (("daphne", "one"), ("uvicorn", "two")):
            path = shutil.copy(sqlite_url.removeprefix("sqlite:///"), tmp_path / f"{key}.sqlite3")
            settings = site_settings(LAYERS[0], private_redis, SECRET_KEY=f"the key of site {key}")
            serving.append(Server(kind, tmp_path, env=site_env(database_url=f"sqlite:///{path}", settings=settings)))
        servers = await start(stack, *serving)
        publishers = [await stack.enter_async_context(Publisher(server.env)) for server in servers]
        readers = await readers_of(stack, servers, TOPIC)
        for reader, publisher, n in zip(readers, publishers, (1, 2), strict=True):
            await publisher.publish(TOPIC, n)
            await all_have([reader], n)
            await all_hear([reader], publisher, TOPIC, 10 + n)
        assert [heard(reader) for reader in readers] == [{11}, {12}]
        assert [told(reader) for reader in readers] == [[1], [2]]
