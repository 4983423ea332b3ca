"""What a request for a stream goes through before Django hears of it: its query, its body, its turn at the door."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, NoReturn

from django.conf import settings as django_settings
from django.http import HttpResponse
from django.utils.datastructures import CaseInsensitiveMapping

from . import origins, sse
from .addresses import address_among
from .door import Passage, door
from .exceptions import LimitReached
from .outlets import Message, Write
from .refusing import Problem, limited
from .responses import start_of

Receive = Callable[[], Awaitable[Message]]
Scope = MutableMapping[str, Any]

#: Where a scope has the body of a request that came in, as bytes, and the passage of one that goes the short way, until
#: somebody takes them.
BODY, PASSAGE = "livefeed.body", "livefeed.passage"
#: Bytes of a body that a request for a stream may have, and seconds in which it has to come.
MAX_BODY, BODY_SECONDS = 64 * 1024, 30.0


class Answered(Exception):
    """A request that has its answer, or whose client has left, and that does not come to Django."""


async def let_in(scope: Scope, receive: Receive, send: Write) -> Passage:
    """Wait until it is this request's turn; return its passage, which whoever got it ends. Its body is in the scope.

    Raises :exc:`Answered` where that was the end of it: it can't be one of ours, or too many wait.
    """
    headers = _headers(scope)
    try:
        _check_query(scope)
        async with asyncio.timeout(BODY_SECONDS):
            scope[BODY] = await whole(receive)
        return await door().enter(_address(scope, headers))
    except Problem as problem:
        response = problem.response()
    except TimeoutError:
        late = Problem(HTTPStatus.REQUEST_TIMEOUT, f"The request's body did not come within {BODY_SECONDS:.0f} s.")
        response = late.response()
    except LimitReached as limit:
        response = limited(limit, headers, wants_stream=sse.CONTENT_TYPE in headers.get("accept", ""))
    await _answer(response, headers, send)


async def _answer(response: HttpResponse, asked: Mapping[str, str], send: Write) -> NoReturn:
    """Answer in the place of Django."""
    for name, value in origins.headers(asked).items():
        response.headers[name] = value
    await send(start_of(response))
    await send({"type": "http.response.body", "body": response.content, "more_body": False})
    raise Answered


def _headers(scope: Scope) -> Mapping[str, str]:
    """Return a request's headers by their names, in any case; of one that comes several times, all together."""
    found: dict[str, str] = {}
    for name, value in scope.get("headers", ()):
        key, text = name.decode("latin1").lower(), value.decode("latin1")
        found[key] = f"{found[key]},{text}" if key in found else text
    return CaseInsensitiveMapping(found)


def _address(scope: Scope, headers: Mapping[str, str]) -> str:
    peer = scope.get("client") or ("", 0)
    return address_among(headers.get("x-forwarded-for", ""), str(peer[0] or ""))


def _check_query(scope: Scope) -> None:
    """Raise :exc:`Problem` for more fields than Django takes, who fails before it has a request to answer, and leaves a
    file open, where Content-Type names a charset besides."""
    most: int | None = django_settings.DATA_UPLOAD_MAX_NUMBER_FIELDS
    if most is not None and scope.get("query_string", b"").count(b"&") >= most:
        raise Problem(HTTPStatus.BAD_REQUEST, f"The query has more than {most} fields.")


async def whole(receive: Receive) -> bytes:
    """Wait until the body of a request is there, and return it.

    Django waits for it before it looks at anything else, and one that never comes must not keep a place behind the
    door. Raises :exc:`Problem` for more than MAX_BODY bytes, for who asks for a stream sends none, and :exc:`Answered`
    where the client leaves meanwhile.
    """
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Answered
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY:
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "A request for a stream has no body.")
    return body


def followed_by(receive: Receive, body: bytes) -> Receive:
    """Return what tells of a body that was received already, and then of what comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again
