"""docs/nginx.conf in front of a server: nothing is held back, silence is not taken for death, HTTP/2 to the client."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.e2e.client import EventStream, new_client
from tests.e2e.servers import Nginx, blog_post, nginx_site, serve, site_env
from tests.processes import run

pytestmark = pytest.mark.needs("nginx")

KEEPALIVE = 1
READ_TIMEOUT = 3


async def post(title: str, database_url: str) -> None:
    """Publish an entry from another process, which the server's look at the history finds."""
    await asyncio.to_thread(blog_post, title, env=site_env(database_url=database_url))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A file with a key and a certificate for it that nobody has signed."""
    key, signed = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    run([*make, "-keyout", str(key), "-out", str(signed)])
    both = tmp_path / "site.pem"
    both.write_text(key.read_text() + signed.read_text())
    return both


async def test_an_event_passes_while_the_response_goes_on(sqlite_url: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serve("uvicorn", tmp_path, database_url=sqlite_url))
        nginx = stack.enter_context(Nginx(tmp_path, {"site": nginx_site("site", [server])}))
        reader = await stack.enter_async_context(EventStream(nginx.url("site"), ["blog.entry"]))
        await reader.opened()
        for title in ("One", "Two"):
            await post(title, sqlite_url)
            await reader.until(
                lambda title=title: reader.events[-1:] and reader.events[-1].data["title"] == title,
                what=f"{title} has passed",
            )
        assert reader.response_headers["content-type"] == "text/event-stream"
        assert reader.response_headers["cache-control"] == "private, no-store, no-transform"
        assert "x-accel-buffering" not in reader.response_headers, "nginx keeps this header to itself"
        assert reader.ends == []


async def test_a_stream_outlives_the_read_timeout_by_its_keep_alives(sqlite_url: str, tmp_path: Path) -> None:
    settings = {"LIVEFEED_KEEPALIVE": KEEPALIVE}
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serve("daphne", tmp_path, database_url=sqlite_url, settings=settings))
        site = nginx_site("site", [server], read_timeout=READ_TIMEOUT)
        nginx = stack.enter_context(Nginx(tmp_path, {"site": site}))
        reader = await stack.enter_async_context(EventStream(nginx.url("site"), ["blog.entry"]))
        await reader.opened()
        enough = 2 * READ_TIMEOUT // KEEPALIVE + 1
        await reader.until(lambda: reader.comments >= enough, what=f"{enough} keep-alives have come")
        assert reader.ends == []
        await post("After the silence", sqlite_url)
        await reader.until(lambda: reader.events, what="the event has come")
        assert reader.ends == []


async def test_without_keep_alives_the_read_timeout_would_have_ended_it(sqlite_url: str, tmp_path: Path) -> None:
    settings = {"LIVEFEED_KEEPALIVE": 10 * READ_TIMEOUT}
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serve("daphne", tmp_path, database_url=sqlite_url, settings=settings))
        site = nginx_site("site", [server], read_timeout=READ_TIMEOUT)
        nginx = stack.enter_context(Nginx(tmp_path, {"site": site}))
        reader = await stack.enter_async_context(EventStream(nginx.url("site"), ["blog.entry"]))
        await reader.opened()
        await reader.until(lambda: reader.ends, what="nginx has given up")


@pytest.mark.needs("openssl")
async def test_many_streams_share_one_http2_connection(certificate: Path, sqlite_url: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serve("uvicorn", tmp_path, database_url=sqlite_url))
        nginx = stack.enter_context(Nginx(tmp_path, {"site": nginx_site("site", [server], certificate=certificate)}))
        client = await stack.enter_async_context(new_client(http2=True, verify=False))
        readers = [
            await stack.enter_async_context(
                EventStream(nginx.url("site", scheme="https"), ["blog.entry"], client=client)
            )
            for _ in range(8)
        ]
        await asyncio.gather(*(reader.opened() for reader in readers))
        assert {reader.http_version for reader in readers} == {"HTTP/2"}
        await post("Over one connection", sqlite_url)
        for reader in readers:
            await reader.until(lambda reader=reader: reader.events, what="the event has come")
