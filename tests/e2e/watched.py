"""A site's ASGI application with a test's hands on it, for what can't be done or seen from outside.

It says in its log who asked for a stream and when. Under /test/ it takes orders: to run Python in the server's process,
as a view would, and to answer the next requests for streams with a status.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import httpx
from asgiref.sync import sync_to_async

from tests.processes import Process

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]

#: What a line of the server's log begins with that tells of a request for a stream.
ASKED = "ASKED "
LIMIT = 60.0


class Watched:
    """The application, watched."""

    def __init__(self, application: Callable[[Scope, Any, Send], Awaitable[None]]) -> None:
        self.application = application
        self.statuses: list[int] = []  # for the next requests for a stream

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        if path.startswith("/test/"):
            await _respond(send, 200, json.dumps(await self._obey(path, _query(scope))))
        elif path == "/livefeed/" and _note(scope) and self.statuses:
            await _respond(send, self.statuses.pop(0), "{}")
        else:
            await self.application(scope, receive, send)

    async def _obey(self, path: str, query: dict[str, list[str]]) -> Any:
        if path == "/test/run/":
            return await sync_to_async(_run)(query["code"][0])
        self.statuses += [int(status) for status in query["status"]]
        return None


def _query(scope: Scope) -> dict[str, list[str]]:
    return parse_qs(scope["query_string"].decode())


def _note(scope: Scope) -> bool:
    """Write down who asks; tell whether it is for a stream (and not a preflight, or a page)."""
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    topics = _query(scope).get("topic", [])
    print(ASKED + json.dumps({"at": time.monotonic(), "topics": topics, **headers}), flush=True)
    return "text/event-stream" in headers.get("accept", "")


def _run(code: str) -> Any:
    """Run Python, and return what it calls `answer`."""
    names: dict[str, Any] = {}
    exec(compile(code, "a test's order", "exec"), names)
    return names.get("answer")


async def _respond(send: Send, status: int, text: str) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": text.encode()})


class Watcher:
    """What a test sees of the watched application of a server, and orders it to do."""

    def __init__(self, server: Process, url: str) -> None:
        self.server = server
        self.url = url

    def run(self, code: str) -> Any:
        """Run Python in the server's process; return what it calls `answer`, as JSON brings it."""
        return self._order("run", code=code)

    def publish(self, topic: str, data: object, type: str = "message") -> None:
        self.run(f"import livefeed; livefeed.publish({topic!r}, {data!r}, type={type!r})")

    def answer(self, *statuses: int) -> None:
        """Answer the next requests for streams with these."""
        self._order("answer", status=statuses)

    def asked(self) -> list[dict[str, Any]]:
        """Return the headers of each request for a stream there was, its `topics`, and `at` which second it came."""
        lines = self.server.log().splitlines()
        return [json.loads(line.removeprefix(ASKED)) for line in lines if line.startswith(ASKED)]

    def _order(self, what: str, **query: Any) -> Any:
        answer = httpx.get(f"{self.url}/test/{what}/", params=query, timeout=LIMIT)
        return answer.raise_for_status().json()
