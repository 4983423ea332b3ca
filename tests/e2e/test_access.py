"""Rights that end while a stream is open: within the stated time the stream is closed, and it does not come back."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.e2e.client import EventStream
from tests.e2e.servers import manage, serve, site_env
from tests.processes import run

RECHECK_INTERVAL = 1

ENDS = {
    "logs out": "Session.objects.get(pk={session!r}).delete()",
    "is deactivated": "User.objects.filter(pk={user}).update(is_active=False)",
    "is deleted": "User.objects.get(pk={user}).delete()",
}
IMPORTS = "from django.contrib.auth.models import User; from django.contrib.sessions.models import Session; "


@pytest.mark.parametrize("end", ENDS)
async def test_the_stream_of_somebody_who_loses_the_right_is_closed(end: str, sqlite_url: str, tmp_path: Path) -> None:
    env = site_env(database_url=sqlite_url)
    leaving, staying = json.loads(run([sys.executable, "-m", "tests.e2e.sign_in", "2"], env=env))
    async with AsyncExitStack() as stack:
        settings = {"LIVEFEED_RECHECK_INTERVAL": RECHECK_INTERVAL}
        server = stack.enter_context(serve("uvicorn", tmp_path, database_url=sqlite_url, settings=settings))
        readers = [
            await stack.enter_async_context(
                EventStream(server.url, [f"notice:{person['user']}"], cookies={"sessionid": person["session"]})
            )
            for person in (leaving, staying)
        ]
        await asyncio.gather(*(reader.opened() for reader in readers))

        await asyncio.to_thread(manage, "shell", "--command", IMPORTS + ENDS[end].format(**leaving), env=env)
        await readers[0].until(lambda: readers[0].ends, what="the stream is closed")
        assert [block.data for block in readers[0].own("closing")] == [{"reason": "revoked"}]
        await readers[0].until(lambda: "404" in readers[0].ends, what="coming back is refused")
        assert readers[1].ends == []
