"""Tokens and other ways to say who one is, as clients send them to real servers; and what is in the logs."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from tests.e2e.client import EventStream, new_client
from tests.e2e.servers import Server, manage, serve, site_env
from tests.processes import run

RECHECK_INTERVAL = 1
JOB = "job:1"
PUBLISH = f"from livefeed import publish; publish({JOB!r}, {{'n': 1}})"
NEW_PASSWORD = "from django.contrib.auth.models import User; u = User.objects.get(pk={}); u.set_password('x'); u.save()"

LOG_OUT = "from django.contrib.sessions.models import Session; Session.objects.get(pk={!r}).delete()"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def signed_in(count: int, env: dict[str, str]) -> list[dict[str, object]]:
    people: list[dict[str, object]] = json.loads(run([sys.executable, "-m", "tests.e2e.sign_in", str(count)], env=env))
    return people


class Trio(NamedTuple):
    """Three who ask one server for the job: by a user's token, by a token for nobody, and without one."""

    server: Server
    reader: EventStream
    nobody: EventStream
    stranger: EventStream


async def test_a_token_from_the_command_line_opens_its_topic_until_the_password_is_another(
    sqlite_url: str, tmp_path: Path
) -> None:
    env = site_env(database_url=sqlite_url)
    ann, _ = signed_in(2, env)
    token = manage("livefeed_token", "--id", str(ann["user"]), "--topic", JOB, env=env).strip()
    others = manage("livefeed_token", "--anonymous", "--topic", JOB, env=env).strip()
    settings = {"LIVEFEED_RECHECK_INTERVAL": RECHECK_INTERVAL}
    async with AsyncExitStack() as stack:
        trios = []
        for kind in ("daphne", "uvicorn"):
            server = stack.enter_context(serve(kind, tmp_path, database_url=sqlite_url, settings=settings))
            streams = (
                EventStream(server.url, [JOB, "job:2"], headers=bearer(token)),
                EventStream(server.url, [JOB], headers=bearer(others)),
                EventStream(server.url, [JOB]),
            )
            trios.append(Trio(server, *[await stack.enter_async_context(stream) for stream in streams]))
        for _, reader, nobody, _ in trios:
            await asyncio.gather(reader.opened(), nobody.opened())
            assert reader.own("open")[0].data["refused"] == ["job:2"]
        await asyncio.to_thread(manage, "shell", "--command", PUBLISH, env=env)
        for _, reader, nobody, _ in trios:
            await reader.until(lambda reader=reader: reader.events, what="the event came")
            await nobody.until(lambda nobody=nobody: nobody.events, what="the event came")

        await asyncio.to_thread(manage, "shell", "--command", NEW_PASSWORD.format(ann["user"]), env=env)
        for server, reader, nobody, stranger in trios:
            await reader.until(lambda reader=reader: "401" in reader.ends, what="coming back is refused")
            assert [block.data for block in reader.own("closing")] == [{"reason": "revoked"}]
            assert reader.response_headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
            assert nobody.ends == []
            assert set(stranger.ends) == {"404"}
            assert token not in server.log()
            assert others not in server.log()


async def test_what_is_no_token_gets_an_answer_and_never_an_error(sqlite_url: str, tmp_path: Path) -> None:
    garbage = ["livefeed_", "livefeed_.", "livefeed_" + "x" * 4000, "livefeed_\xff", "livefeed_a.b.c", "livefeed_=" * 9]
    with serve("uvicorn", tmp_path, database_url=sqlite_url) as server:
        async with new_client() as client:
            for text in garbage:
                headers = {b"Authorization": f"Bearer {text}".encode("latin-1"), b"Accept": b"text/event-stream"}
                response = await client.get(f"{server.url}/livefeed/", params={"topic": JOB}, headers=headers)
                assert response.status_code == 401, text[:20]
                assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
                assert response.json()["status"] == 401
                assert text not in response.text


async def test_a_class_of_rest_framework_s_keeps_a_real_stream_open_as_long_as_its_session(
    sqlite_url: str, tmp_path: Path
) -> None:
    env = site_env(database_url=sqlite_url)
    ann, bob = signed_in(2, env)
    settings = {
        "LIVEFEED_RECHECK_INTERVAL": RECHECK_INTERVAL,
        "LIVEFEED_AUTHENTICATION": ["rest_framework.authentication.SessionAuthentication"],
    }
    with serve("uvicorn", tmp_path, database_url=sqlite_url, settings=settings) as server:
        async with (
            EventStream(server.url, [f"notice:{ann['user']}"], cookies={"sessionid": str(ann["session"])}) as leaving,
            EventStream(server.url, [f"notice:{bob['user']}"], cookies={"sessionid": str(bob["session"])}) as staying,
        ):
            await asyncio.gather(leaving.opened(), staying.opened())
            log_out = LOG_OUT.format(ann["session"])
            await asyncio.to_thread(manage, "shell", "--command", log_out, env=env)
            await leaving.until(lambda: "404" in leaving.ends, what="coming back is refused")
            assert [block.data for block in leaving.own("closing")] == [{"reason": "revoked"}]
            assert staying.ends == []


async def test_a_proxy_that_nobody_told_the_site_of_is_in_the_log_once(sqlite_url: str, tmp_path: Path) -> None:
    with serve("daphne", tmp_path, database_url=sqlite_url) as server:
        async with new_client() as client:
            for address in ("192.0.2.7", "192.0.2.8"):
                headers = {"X-Forwarded-For": address, "Accept": "application/json"}
                response = await client.get(f"{server.url}/livefeed/", params={"topic": "blog.entry"}, headers=headers)
                assert response.status_code in {200, 404}
        assert server.log().count("LIVEFEED_TRUSTED_PROXIES is 0") == 1
