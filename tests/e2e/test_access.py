"""Rights that end while streams are open, on two servers: at once where the layer works, else within the interval."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.e2e.client import EventStream
from tests.e2e.servers import Server, manage, serve, site_env
from tests.processes import run

HOUR = 3600.0
NEVER_LOOKED_AT = {"LIVEFEED_RECHECK_INTERVAL": HOUR, "LIVEFEED_LEASE_SECONDS": HOUR}
IMPORTS = "from django.contrib.auth.models import User; from django.contrib.sessions.models import Session; "
REVOKED, TAKEN = {"reason": "revoked"}, {"reason": "taken-over"}


class Reader(NamedTuple):
    """Somebody who is signed in and reads their own notices, on both servers."""

    user: int
    session: str
    streams: list[EventStream]


@asynccontextmanager
async def readers(servers: list[Server], env: dict[str, str], count: int) -> AsyncIterator[list[Reader]]:
    """So many people, who read on all servers; the last one stays open to the end, whatever becomes of the others."""
    people = json.loads(run([sys.executable, "-m", "tests.e2e.sign_in", str(count)], env=env))
    async with AsyncExitStack() as stack:
        found = []
        for person in people:
            cookies = {"sessionid": person["session"]}
            streams = [EventStream(server.url, [f"notice:{person['user']}"], cookies=cookies) for server in servers]
            for stream in streams:
                await stack.enter_async_context(stream)
            found.append(Reader(person["user"], person["session"], streams))
        await asyncio.gather(*(stream.opened() for reader in found for stream in reader.streams))
        yield found
        assert [stream.ends for stream in found[-1].streams] == [[] for _ in servers]


async def closes(stream: EventStream, reason: dict[str, str], *, comes_back: bool = False) -> None:
    await stream.until(lambda: stream.ends, what="the stream is closed")
    assert [block.data for block in stream.own("closing")] == [reason]
    if comes_back:
        await stream.until(lambda: len(stream.own("open")) == 2, what="it is open again")
    else:
        await stream.until(lambda: "404" in stream.ends, what="coming back is refused")


async def shell(code: str, reader: Reader, env: dict[str, str]) -> None:
    """Run Python in a process of its own, which serves nothing."""
    text = IMPORTS + code.format(user=reader.user, session=reader.session)
    await asyncio.to_thread(manage, "shell", "--command", text, env=env)


AT_ONCE = {
    "is deactivated": "user = User.objects.get(pk={user}); user.is_active = False; user.save()",
    "gets a new password": "user = User.objects.get(pk={user}); user.set_password('another'); user.save()",
    "is deleted": "User.objects.get(pk={user}).delete()",
}
#: Without a word of Django's, so that nobody is looked at because of it.
MAY_ALL = "User.objects.filter(pk={user}).update(is_staff=True, is_superuser=True)"


@pytest.mark.needs("redis")
async def test_every_server_closes_at_once_what_ended_elsewhere(
    sqlite_url: str, redis_url: str, tmp_path: Path
) -> None:
    env = site_env(database_url=sqlite_url, redis_url=redis_url)
    where: dict[str, Any] = {"database_url": sqlite_url, "redis_url": redis_url, "settings": NEVER_LOOKED_AT}
    with serve("uvicorn", tmp_path, **where) as uvicorn, serve("daphne", tmp_path, **where) as daphne:
        async with readers([uvicorn, daphne], env, len(AT_ONCE) + 4) as people:
            logs_out, is_disconnected, is_chosen, *ending, admin = people
            codes = [MAY_ALL, *AT_ONCE.values()]
            await asyncio.gather(*map(shell, codes, [admin, *ending], itertools.repeat(env)))
            await _log_out(uvicorn, logs_out)
            await _press_the_button(daphne, admin, is_chosen)
            arguments = ("livefeed_connections", "--topic", f"notice:{is_disconnected.user}", "--disconnect")
            out = await asyncio.to_thread(manage, *arguments, env=env)
            assert out.count(f"user:{is_disconnected.user} ") == 2
            await asyncio.gather(
                *(closes(stream, REVOKED) for reader in (logs_out, *ending) for stream in reader.streams),
                *(
                    closes(stream, REVOKED, comes_back=True)
                    for reader in (is_disconnected, is_chosen)
                    for stream in reader.streams
                ),
            )


def _browser(server: Server, reader: Reader) -> httpx.AsyncClient:
    """Return what sends forms as a browser does: with their token."""
    token = "c" * 32
    cookies, headers = {"sessionid": reader.session, "csrftoken": token}, {"X-CSRFToken": token, "Referer": server.url}
    return httpx.AsyncClient(base_url=server.url, cookies=cookies, headers=headers, trust_env=False)


async def _log_out(server: Server, reader: Reader) -> None:
    async with _browser(server, reader) as browser:
        response = await browser.post("/logout/")
        assert response.status_code == httpx.codes.FOUND, response.text


async def _press_the_button(server: Server, admin: Reader, reader: Reader) -> None:
    """Choose somebody's connections in the admin, and disconnect them."""
    async with _browser(server, admin) as browser:
        page = await browser.get("/admin/livefeed/lease/", params={"q": f"notice:{reader.user}"})
        chosen = re.findall(r'name="_selected_action" value="(\d+)"', page.text)
        assert len(chosen) == 2, page.text
        data = {"action": "disconnect", "_selected_action": chosen}
        response = await browser.post("/admin/livefeed/lease/", data=data)
        assert response.status_code == httpx.codes.FOUND, response.text


WITHOUT_A_LAYER = {
    "logs out": ("Session.objects.get(pk={session!r}).delete()", REVOKED),
    "is deactivated": ("User.objects.filter(pk={user}).update(is_active=False)", REVOKED),
    "is disconnected": ("from livefeed import disconnect; disconnect(user={user})", TAKEN),
}


async def test_servers_that_hear_nothing_of_each_other_find_out_within_the_interval(
    sqlite_url: str, tmp_path: Path
) -> None:
    """Each has a layer of its own, in memory: as if it were away."""
    env = site_env(database_url=sqlite_url)
    where: dict[str, Any] = {"database_url": sqlite_url, "settings": {"LIVEFEED_RECHECK_INTERVAL": 1}}
    with serve("uvicorn", tmp_path, **where) as uvicorn, serve("daphne", tmp_path, **where) as daphne:
        async with readers([uvicorn, daphne], env, len(WITHOUT_A_LAYER) + 1) as people:
            ending = list(zip(people, WITHOUT_A_LAYER.values(), strict=False))
            await asyncio.gather(*(shell(code, reader, env) for reader, (code, _) in ending))
            await asyncio.gather(
                *(
                    closes(stream, reason, comes_back=reason == TAKEN)
                    for reader, (_, reason) in ending
                    for stream in reader.streams
                )
            )
