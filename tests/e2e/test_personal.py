"""Two users of one topic on a real server: each sees their own, and what is hidden is not replayed after a crash."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from tests.e2e.client import EventStream
from tests.e2e.publisher import Publisher
from tests.e2e.servers import Server, site_env
from tests.processes import run

TOPIC = "ledger"
KEEPALIVE = 0.5
SEEN = {"reader-0": [0, 1, 3, 4], "reader-1": [0, 3]}
HIDDEN = [8, 11, 14]
LATER = {"reader-0": [21, 22], "reader-1": [21]}


def told(reader: EventStream) -> list[int]:
    return [block.data["n"] for block in reader.events]


async def test_two_users_see_their_own_and_nothing_hidden_is_asked_for_again_after_a_crash(
    sqlite_url: str, tmp_path: Path
) -> None:
    env = {
        **site_env(database_url=sqlite_url, settings={"LIVEFEED_KEEPALIVE": KEEPALIVE}),
        "DJANGO_SETTINGS_MODULE": "tests.e2e.ledger.settings",
    }
    people = json.loads(run([sys.executable, "-m", "tests.e2e.sign_in", "2"], env=env))
    async with AsyncExitStack() as stack:
        server = stack.enter_context(Server("uvicorn", tmp_path, env=env))
        publisher = await stack.enter_async_context(Publisher(env))
        readers = {
            f"reader-{number}": await stack.enter_async_context(
                EventStream(server.url, [TOPIC], cookies={"sessionid": person["session"]})
            )
            for number, person in enumerate(people)
        }
        await asyncio.gather(*(reader.opened() for reader in readers.values()))
        await publisher.publish(TOPIC, *range(6))
        for name, reader in readers.items():
            await reader.until(lambda name=name, reader=reader: told(reader) == SEEN[name], what="their own have come")
        await publisher.publish(TOPIC, *HIDDEN)
        head = 6 + len(HIDDEN)
        for reader in readers.values():
            await reader.until(lambda reader=reader: _stands_at(reader, head), what="a sync has told the position")
            reader.retry = 0.1

        server.kill()
        before = len(server.log())
        await asyncio.to_thread(server.start)
        for reader in readers.values():
            await reader.until(lambda reader=reader: len(reader.own("open")) > 1, what="a stream is back")
            assert reader.own("open")[-1].data["resumed"] is True
        await publisher.publish(TOPIC, 20, 21, 22)
        for name, reader in readers.items():
            wanted = SEEN[name] + LATER[name]
            await reader.until(lambda reader=reader, wanted=wanted: told(reader) == wanted, what="what comes next")
            assert {block.data["for"] for block in reader.events} == {name}
        asked = [line for line in server.log()[before:].splitlines() if "is asked for" in line]
        assert {int(line.split()[-1]) for line in asked} == {20, 21, 22}
        assert not server.trouble()


def _stands_at(reader: EventStream, seq: int) -> bool:
    """Tell whether the last thing that moved the cursor was a sync, to this number."""
    syncs = reader.own("sync")
    return bool(syncs) and reader.last_event_id == syncs[-1].data["cursor"] and reader.last_event_id.endswith(str(seq))
