"""Eight writers at once on PostgreSQL, a third of their transactions rolled back: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.client import EventStream
from tests.e2e.servers import serve, site_env
from tests.e2e.wire import Wire
from tests.e2e.writer import KEPT, TOPIC
from tests.processes import ROOT, environment

pytestmark = [pytest.mark.needs("postgres"), pytest.mark.timeout(300)]

WRITERS = 8
EVENTS_EACH = 125


@contextmanager
def writers(env: dict[str, str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start the writers and wait until all are ready to begin."""
    with ExitStack() as stack:
        running = []
        for number in range(WRITERS):
            command = [sys.executable, "-m", "tests.e2e.writer", str(number), str(EVENTS_EACH)]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(env), cwd=ROOT
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            running.append(process)
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        yield running


def begin(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()


@pytest.mark.parametrize("layer", ["in-memory", pytest.param("redis", marks=pytest.mark.needs("redis"))])
async def test_a_thousand_events_of_eight_writers_arrive_without_hole_double_or_phantom(
    layer: str, demo_postgres_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    redis_url = request.getfixturevalue("redis_url") if layer == "redis" else ""
    databases = {"database_url": demo_postgres_url, "redis_url": redis_url}
    env = site_env(**databases)
    async with AsyncExitStack() as stack:
        servers = [stack.enter_context(serve(kind, tmp_path, **databases)) for kind in ("daphne", "uvicorn")]
        wires = [stack.enter_context(Wire(server.port)) for server in servers]
        urls = [server.url for server in servers] * 2 + [wire.url for wire in wires]
        readers = [await stack.enter_async_context(EventStream(url, [TOPIC])) for url in urls]
        await asyncio.gather(*(reader.opened() for reader in readers))
        processes = stack.enter_context(writers(env))

        begin(processes)
        for cut_off, wire in zip(readers[-len(wires) :], wires, strict=True):
            await cut_off.until(lambda reader=cut_off: len(reader.events) > 100, what="the writers are at work")
            await asyncio.to_thread(wire.cut)
            await asyncio.to_thread(wire.mend)
        codes = await asyncio.gather(*(asyncio.to_thread(process.wait) for process in processes))
        assert codes == [0] * WRITERS

        total = WRITERS * EVENTS_EACH
        for reader in readers:
            await reader.until(lambda reader=reader: len(reader.events) >= total, what="all events are there")
        await publish_last_word(env)
        for reader in readers:
            await reader.until(lambda reader=reader: reader.events[-1].type == "last-word", what="the last word came")

        first = told(readers[0])
        check_against_what_was_written(first)
        for reader in readers[1:]:
            assert told(reader) == first
        assert [bool(reader.ends) for reader in readers] == [False] * 4 + [True] * 2
        assert not any(reader.own("reset") for reader in readers)


def told(reader: EventStream) -> list[str]:
    """Return the titles in the order in which they came, without the last word."""
    return [block.data["title"] for block in reader.events if block.type != "last-word"]


def check_against_what_was_written(titles: list[str]) -> None:
    """Assert that each writer's events are there, all of them, once, in its order, and nothing else."""
    counts = defaultdict(list)
    for title in titles:
        writer, count, fate = title.split()
        assert fate == KEPT
        counts[int(writer)].append(int(count))
    assert dict(counts) == {number: list(range(EVENTS_EACH)) for number in range(WRITERS)}


async def publish_last_word(env: dict[str, str]) -> None:
    code = f"import livefeed; livefeed.publish({TOPIC!r}, {{}}, type='last-word')"
    command = [sys.executable, "manage.py", "shell", "--command", code]
    process = await asyncio.create_subprocess_exec(*command, env=environment(env), cwd=ROOT)
    assert await process.wait() == 0
