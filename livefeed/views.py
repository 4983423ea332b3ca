"""The one view: a stream, a page of history, or a snapshot, as the client asks by ``Accept``.

It never redirects and never fails for what a client sent: any status but 200 ends a browser's EventSource for good, so
a browser that would be refused for a while gets a stream that says so and when to come back.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import SuspiciousOperation
from django.core.handlers.asgi import ASGIRequest
from django.db import Error as DatabaseError
from django.db import connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase

from . import html, origins, rates, sse
from .access import Grant, grant
from .conf import settings
from .cursors import Cursor, parse_cursor
from .exceptions import AuthenticationFailed, FeedError, HistoryUnavailable, InvalidCursor, InvalidTopic, LimitReached
from .pages import history_page
from .roster import get_roster
from .streams import HEADERS, REFUSED_RETRY, EventStreamResponse, own_block
from .topics import plain_name, validate_topic
from .viewers import Viewer, viewer_of

METHODS = "GET, HEAD, OPTIONS"
#: Bytes of a query: as many signed names as are allowed and a cursor of them all fit, with room.
MAX_QUERY = 32 * 1024
_CLIENT = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Problem(Exception):
    """An answer that is an error: ``application/problem+json`` (RFC 9457)."""

    def __init__(self, status: HTTPStatus, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def response(self) -> HttpResponse:
        body = {"type": "about:blank", "title": self.status.phrase, "status": self.status, "detail": self.detail}
        return JsonResponse(body, status=self.status, content_type="application/problem+json", headers=self.headers)


@login_not_required
async def stream(request: HttpRequest) -> HttpResponseBase:
    """Answer ``GET ?topic=…&topic=…`` with a stream, a page of history (JSON), or a snapshot (HTML)."""
    try:
        response = await _respond(request)
    except Problem as problem:
        response = problem.response()
    except SuspiciousOperation as error:  # thousands of parameters, a Host that is not ours
        response = Problem(HTTPStatus.BAD_REQUEST, str(error)).response()
    for name, value in origins.headers(request).items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "private, no-store")
    return response


# ATOMIC_REQUESTS would refuse an async view, and hold a transaction as long as the stream lasts.
stream._non_atomic_requests = set(connections)  # type: ignore[attr-defined]


async def _respond(request: HttpRequest) -> HttpResponseBase:
    if request.method == "OPTIONS":
        return HttpResponse(headers={"Allow": METHODS})
    if request.method not in {"GET", "HEAD"}:
        raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, f"Use one of {METHODS}.", Allow=METHODS)
    if origins.is_foreign(request):
        raise Problem(
            HTTPStatus.FORBIDDEN,
            "A page of another origin may not read this. LIVEFEED_ALLOWED_ORIGINS names those that may.",
        )
    answer = _answer_for(request)
    names = _asked_topics(request)
    try:
        viewer, granted = await sync_to_async(_admit)(request, names)
        if not granted.names:
            raise _refusal(request, viewer)
        return await answer(request, viewer, granted)
    except LimitReached as limit:
        return _limited(request, limit)
    except (DatabaseError, HistoryUnavailable):
        return _limited(request, LimitReached("unavailable", 0))


Answer = Callable[[HttpRequest, Viewer, Grant], Coroutine[Any, Any, HttpResponseBase]]


def _answer_for(request: HttpRequest) -> Answer:
    answers: dict[str, Answer] = {
        sse.CONTENT_TYPE: _stream,
        "application/json": _history,
        "text/html": _snapshot,
    }
    try:
        wanted = request.get_preferred_type(list(answers))
    except ValueError:  # a parameter that can't be decoded
        wanted = None
    if wanted is None:
        raise Problem(HTTPStatus.NOT_ACCEPTABLE, f"Accept one of {', '.join(answers)}.")
    return answers[wanted]


def _asked_topics(request: HttpRequest) -> list[str]:
    if len(request.META.get("QUERY_STRING", "")) > MAX_QUERY:
        raise Problem(HTTPStatus.REQUEST_URI_TOO_LONG, f"The query is longer than {MAX_QUERY} bytes.")
    names = request.GET.getlist("topic")
    if not names:
        raise Problem(HTTPStatus.BAD_REQUEST, "Name at least one topic: ?topic=news.article")
    if len(names) > settings.MAX_TOPICS:
        raise Problem(HTTPStatus.BAD_REQUEST, f"{len(names)} topics are too many; {settings.MAX_TOPICS} are allowed.")
    for name in names:
        try:
            validate_topic(plain_name(name))
        except InvalidTopic as error:
            raise Problem(HTTPStatus.BAD_REQUEST, str(error)) from error
    return names


def _admit(request: HttpRequest, names: list[str]) -> tuple[Viewer, Grant]:
    try:
        viewer = viewer_of(request)
    except AuthenticationFailed as failure:
        raise Problem(HTTPStatus.UNAUTHORIZED, failure.detail, WWW_Authenticate=failure.challenge) from None
    rates.take(viewer)
    return viewer, grant(viewer, names)


def _refusal(request: HttpRequest, viewer: Viewer) -> Problem:
    known = viewer.is_user or viewer.proof is not None
    if "Authorization" in request.headers and not known:  # nobody understood it
        return Problem(HTTPStatus.UNAUTHORIZED, "The token does not hold.", WWW_Authenticate="Bearer")
    return Problem(HTTPStatus.NOT_FOUND, "There is nothing under these names, or not for you.")


# -- a stream ---------------------------------------------------------------------------------------------------------


async def _stream(request: HttpRequest, viewer: Viewer, granted: Grant) -> HttpResponseBase:
    if not isinstance(request, ASGIRequest):
        raise Problem(
            HTTPStatus.NOT_IMPLEMENTED,
            "This site is served over WSGI, where a stream would block a worker. Serve its ASGI application (with "
            "Daphne, uvicorn, …), or ask for pages with Accept: application/json.",
        )
    if request.method == "HEAD":
        return HttpResponse(content_type=sse.CONTENT_TYPE, headers=HEADERS)
    client = request.GET.get("client", "")
    if client and not _CLIENT.fullmatch(client):
        raise Problem(HTTPStatus.BAD_REQUEST, 'client is 1 to 64 letters, digits, "-" and "_".')
    cursor, garbage = _stream_cursor(request)
    return EventStreamResponse(await get_roster().open(viewer, client, granted, cursor, garbage=garbage))


def _cursor_text(request: HttpRequest) -> str:
    """Return the cursor a client sent: the header wins, for a browser reconnects with the URL of its first connect."""
    since = (request.GET.get(name) for name in ("since", "lastEventId", "last_event_id"))
    return request.headers.get("Last-Event-ID") or next(filter(None, since), "")


def _stream_cursor(request: HttpRequest) -> tuple[Cursor | None, bool]:
    """Return the cursor, and whether what was sent is garbage: on a stream that ends in a reset, not in an error."""
    text = _cursor_text(request)
    try:
        return (parse_cursor(text), False) if text else (None, False)
    except InvalidCursor:
        return None, True


def _limited(request: HttpRequest, limit: LimitReached) -> HttpResponse:
    """Tell a client to come back later: a browser that asked for a stream in a stream, everybody else by status."""
    retry = random.randint(*REFUSED_RETRY)
    if _is_browser(request) and _answer_for(request) is _stream:
        data = {"reason": limit.reason, "of": limit.of, "limit": limit.limit, "retry": retry}
        body = sse.retry(retry) + own_block("refused", data)
        return HttpResponse(body, content_type=sse.CONTENT_TYPE, headers=HEADERS)
    status = HTTPStatus.TOO_MANY_REQUESTS if limit.reason in {"limit", "rate"} else HTTPStatus.SERVICE_UNAVAILABLE
    return Problem(status, f"{limit}. Come back later.", Retry_After=str(retry // 1000)).response()


def _is_browser(request: HttpRequest) -> bool:
    # Browsers leave Sec-Fetch-* out on plain http other than localhost.
    return "Sec-Fetch-Mode" in request.headers or request.headers.get("User-Agent", "").startswith("Mozilla/")


# -- pages and snapshots ----------------------------------------------------------------------------------------------


async def _history(request: HttpRequest, viewer: Viewer, granted: Grant) -> HttpResponseBase:
    text = _cursor_text(request)
    try:
        cursor = parse_cursor(text) if text else None
    except InvalidCursor as error:
        raise Problem(HTTPStatus.BAD_REQUEST, str(error)) from error
    page = await sync_to_async(history_page)(list(granted.names), cursor, viewer.user)
    rates.charge(viewer, len(page["events"]))
    return JsonResponse({**page, "refused": granted.refused}, headers={"Cache-Control": "private, no-store"})


async def _snapshot(request: HttpRequest, viewer: Viewer, granted: Grant) -> HttpResponseBase:
    if len(granted.names) != 1:
        raise Problem(HTTPStatus.BAD_REQUEST, "A snapshot is of one topic.")
    limit, insert = request.GET.get("limit", ""), request.GET.get("insert", "")
    if limit and not re.fullmatch(r"[1-9][0-9]{0,3}", limit):
        raise Problem(HTTPStatus.BAD_REQUEST, "limit is a number of items, from 1 to 9999.")
    if insert not in {"", *html.INSERT}:
        raise Problem(HTTPStatus.BAD_REQUEST, 'insert is "prepend" or "append".')
    try:
        text = await sync_to_async(html.snapshot)(next(iter(granted.names)), viewer.user, int(limit or 0), insert)
    except FeedError as error:
        raise Problem(HTTPStatus.NOT_ACCEPTABLE, "This topic has no items to show; ask for its stream.") from error
    return HttpResponse(text, headers={"Cache-Control": "private, no-store"})
