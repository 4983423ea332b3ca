"""The demo as the tests of refused clients serve it: `uvicorn tests.e2e.refused_site:application`.

It has two feeds more, says in its log who asked for a stream and when, publishes what a test asks it to, and takes the
pause of a refused client from LIVEFEED_TEST_PAUSE (two numbers of milliseconds), so that no test waits half a minute.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from livefeed import LiveFeed, apublish, register
from project.asgi import application as site

if pause := os.environ.get("LIVEFEED_TEST_PAUSE"):
    from livefeed import refusing  # not before the site is set up

    refusing.REFUSED_RETRY = tuple(json.loads(pause))


@register
class ArticleFeed(LiveFeed):
    name = "news.article"
    public = True


@register
class HeadlineFeed(LiveFeed):
    name = "headline"
    public = True
    event_names = False  # no "event:" line, and a str goes out as it is


async def application(scope: dict[str, Any], receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    if scope["type"] == "http" and scope["path"] == "/livefeed/":
        _note(scope)
    if scope["type"] == "http" and scope["path"] == "/publish/":
        await _publish(scope, send)
    else:
        await site(scope, receive, send)


def _note(scope: dict[str, Any]) -> None:
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    topics = parse_qs(scope["query_string"].decode()).get("topic", [])
    print("ASKED", json.dumps({"at": time.monotonic(), "topics": topics, **headers}), flush=True)


async def _publish(scope: dict[str, Any], send: Callable[[Any], Awaitable[None]]) -> None:
    asked = {name: value[0] for name, value in parse_qs(scope["query_string"].decode()).items()}
    await apublish(asked["topic"], json.loads(asked["data"]), type=asked["type"])
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})
