"""An attack: one client opens 2,000 streams at once, one sends garbage, some never read; and honest people get through.

Times are measured and told, not judged: what is judged is who got in, what the honest readers got, what the server
logged, and what it holds afterwards.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.e2e.attackers import Attacker
from tests.e2e.client import EventStream
from tests.e2e.publisher import Publisher
from tests.e2e.servers import Server, serve, site_env
from tests.processes import poll, run

pytestmark = [pytest.mark.needs("redis"), pytest.mark.timeout(180)]

TOPIC = "blog.entry"
Recorder = Callable[[str, object], None]
#: Connections at once: the number that is asked for, and what is enough to see most of it in a few seconds.
FLOODS = [pytest.param(2_000, marks=pytest.mark.needs("time")), 300]
GARBAGE = 150
LIMIT = 10
SETTINGS = {"LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS": LIMIT, "DEBUG": False}
DEAF = LIMIT
#: Where the honest user is. Whoever shares the flood's address stands in its line.
USER_ADDRESS = "127.0.0.3"
EVENTS, BATCH, SIZE = 400, 50, 4096
MIB = 1024 * 1024
#: Bytes by which the server may grow, and how many more for each request that waits at the door.
GROWTH, GROWTH_EACH = 64 * MIB, 96 * 1024
#: Threads and files that a server may have more than before: those of its pool, which come and go.
FEW = 24
AFTERWARDS = 30.0
PATIENCE = 60.0


class Visitor:
    """Somebody who reads an ordinary page of the site, again and again, from an address of their own."""

    def __init__(self, server: Server, address: str) -> None:
        self.seconds: list[float] = []
        self.statuses: set[int] = set()
        self._url = f"{server.url}/entry/1/"
        self._transport = httpx.AsyncHTTPTransport(local_address=address)

    async def __aenter__(self) -> Visitor:
        self._task = asyncio.create_task(self._visit())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _visit(self) -> None:
        async with httpx.AsyncClient(transport=self._transport, timeout=PATIENCE) as client:
            while True:
                began = time.monotonic()
                answer = await client.get(self._url)
                self.seconds.append(time.monotonic() - began)
                self.statuses.add(answer.status_code)


def holds(server: Server) -> int:
    """Return how many threads and open files a server has, but for those of SQLite's database file.

    SQLite keeps the descriptors of closed connections for the next ones, as long as another connection is open: closing
    one would end the locks of all (POSIX). The file of its log is closed with each connection, and counts.
    """
    files = list(Path(f"/proc/{server.pid}/fd").iterdir())
    names = [os.readlink(file) for file in files if os.path.lexists(file)]
    threads = list(Path(f"/proc/{server.pid}/task").iterdir())
    return len(threads) + sum(not name.endswith(".sqlite3") for name in names)


def memory(server: Server, name: str) -> int:
    """Return the bytes of a process: "VmRSS" what it has, "VmHWM" the most it ever had."""
    match = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def client_from(address: str) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(local_address=address, limits=httpx.Limits(max_connections=None))
    return httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(None, connect=PATIENCE))


async def opened_after(reader: EventStream) -> float:
    """Wait until a reader's stream is open; return how long that took, in seconds."""
    began = time.monotonic()
    await reader.until(lambda: reader.own("open"), what="an honest reader is let in", limit=PATIENCE)
    return time.monotonic() - began


@pytest.mark.parametrize("count", FLOODS)
@pytest.mark.parametrize("kind", ["uvicorn", "daphne"])
async def test_honest_people_get_through_an_attack_and_the_server_is_what_it_was(
    kind: str,
    count: int,
    sqlite_url: str,
    redis_url: str,
    tmp_path: Path,
    record_property: Recorder,
) -> None:
    databases = {"database_url": sqlite_url, "redis_url": redis_url}
    (person,) = json.loads(run([sys.executable, "-m", "tests.e2e.sign_in", "1"], env=site_env(**databases)))
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serve(kind, tmp_path, settings=SETTINGS, **databases))
        publisher = await stack.enter_async_context(Publisher(server.env))
        client = await stack.enter_async_context(client_from("127.0.0.2"))
        async with EventStream(server.url, [TOPIC], client=client) as reader:
            await reader.opened()
        held, size = holds(server), memory(server, "VmRSS")

        async with AsyncExitStack() as attack:
            visitor = await attack.enter_async_context(Visitor(server, "127.0.0.3"))
            deaf = await attack.enter_async_context(Attacker("deaf", server.port, DEAF))
            assert (await deaf.met()).get("stream") == DEAF
            garbage = await attack.enter_async_context(Attacker("garbage", server.port, GARBAGE))
            flood = await attack.enter_async_context(Attacker("flood", server.port, count))
            cookies = {"sessionid": person["session"]}
            neighbour = await attack.enter_async_context(client_from(USER_ADDRESS))
            user = await attack.enter_async_context(EventStream(server.url, [TOPIC], cookies=cookies, client=neighbour))
            anonymous = await attack.enter_async_context(EventStream(server.url, [TOPIC], client=client))
            waits = await asyncio.gather(opened_after(user), opened_after(anonymous))
            for start in range(0, EVENTS, BATCH):
                await publisher.publish(TOPIC, *range(start, start + BATCH), size=SIZE)
            for reader in (user, anonymous):
                await reader.until(
                    lambda reader=reader: len(reader.events) >= EVENTS, what="an honest reader has all", limit=PATIENCE
                )
                assert [block.data["n"] for block in reader.events] == list(range(EVENTS))
                assert (reader.ends, len(reader.own("open")), reader.own("reset")) == ([], 1, [])
            met, answers = await flood.met(), await garbage.met()
            record_property(f"{kind}: seconds until the honest user and the anonymous reader were let in", waits)
            record_property(f"{kind}: of {count} connections", met)
            record_property(f"{kind}: garbage was answered with", answers)

        record_property(f"{kind}: the page, {len(visitor.seconds)} times, median s", statistics.median(visitor.seconds))
        record_property(f"{kind}: the page, longest s", max(visitor.seconds))
        record_property(f"{kind}: grew at most by MiB", (memory(server, "VmHWM") - size) / MIB)
        assert met.get("stream", 0) <= LIMIT
        proper = [met.get(answer, 0) for answer in ("stream", "refused", "429", "503")]  # 503: the line was full
        assert sum(proper) == count, f"everybody got an answer, and a proper one: {met}"
        assert "500" not in answers
        assert visitor.statuses == {200}
        assert memory(server, "VmHWM") - size < GROWTH + count * GROWTH_EACH
        await asyncio.to_thread(
            poll, lambda: holds(server) <= held + FEW, limit=AFTERWARDS, what="the attack's threads and files are gone"
        )
    assert server.trouble() == []
