"""SIGTERM while streams are open: the clients are told and their streams end whole, and the process ends too."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.e2e.client import EventStream
from tests.e2e.servers import KINDS, serve

STREAMS = 3
END_LIMIT = 15.0


@pytest.mark.parametrize("kind", KINDS)
async def test_on_sigterm_every_client_hears_closing_and_the_process_ends(
    kind: str, sqlite_url: str, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serve(kind, tmp_path, database_url=sqlite_url))
        readers = [
            await stack.enter_async_context(EventStream(server.url, ["blog.entry"], reconnect=False))
            for _ in range(STREAMS)
        ]
        await asyncio.gather(*(reader.opened() for reader in readers))

        server.terminate()
        for reader in readers:
            await reader.until(lambda reader=reader: reader.ends, what="the stream has ended", limit=END_LIMIT)
            assert [block.data for block in reader.own("closing")] == [{"reason": "shutdown"}]
            assert reader.blocks[-1].type == "livefeed-closing"
            assert reader.ends == ["clean"]
            assert reader.retry >= 1
        await asyncio.to_thread(server.wait, END_LIMIT)
