"""The one view: a stream, a page of history, or a snapshot, as the client asks by ``Accept``.

It never redirects and never fails for what a client sent; who is refused is told so in a way that it understands
(``refusing``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus

from asgiref.sync import sync_to_async
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import SuspiciousOperation
from django.core.handlers.asgi import ASGIRequest
from django.db import Error as DatabaseError
from django.db import connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from . import html, origins, rates, snapshots, sse
from .access import Grant, grant
from .conf import settings
from .cursors import Cursor, parse_cursor
from .exceptions import AuthenticationFailed, FeedError, HistoryUnavailable, InvalidCursor, InvalidTopic, LimitReached
from .listing import items_looked_at
from .outlets import OUTLET
from .pages import history_page
from .refusing import Problem, limited
from .responses import HEADERS, EventStreamResponse
from .topics import plain_name, validate_topic
from .viewers import Viewer, address_of, viewer_of
from .visits import VISIT, BrokenOff, Visit

METHODS = "GET, HEAD, OPTIONS"
#: Bytes of a query: as many signed names as are allowed and a cursor of them all fit, with room.
MAX_QUERY = 32 * 1024
#: Characters of an Accept header: to weigh one of 64 KiB takes a tenth of a second of everybody's time.
MAX_ACCEPT = 2048
#: Characters of a row's key: a UUID or a word, and room for more.
MAX_KEY = 200
_CLIENT = re.compile(r"[A-Za-z0-9_-]{1,64}")


@csrf_exempt  # nothing is changed here, and a method that is none of ours gets our own answer
@login_not_required
async def stream(request: HttpRequest) -> HttpResponseBase:
    """Answer ``GET ?topic=…&topic=…`` with a stream, a page of history (JSON), or a snapshot (HTML)."""
    with Visit() as visit:
        return await sync_to_async(respond)(request, visit)


def respond(request: HttpRequest, visit: Visit) -> HttpResponseBase:
    """Do what :func:`stream` does, in a thread, for a visit that was begun on the event loop."""
    try:
        response = _respond(request, visit)
    except Problem as problem:
        response = problem.response()
    except BrokenOff:
        return HttpResponse(status=HTTPStatus.NO_CONTENT)
    except SuspiciousOperation:  # thousands of parameters, a Host that is not ours: its text is not for strangers
        response = Problem(HTTPStatus.BAD_REQUEST, "Django refuses this request.").response()
    for name, value in origins.headers(request.headers).items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "private, no-store")
    return response


def blocking_stream(request: HttpRequest) -> HttpResponseBase:
    """Do what :func:`stream` does, for a handler that is in a thread anyway and has begun the visit."""
    return respond(request, request.scope[VISIT])  # type: ignore[attr-defined]


# ATOMIC_REQUESTS would refuse an async view, and hold a transaction as long as the stream lasts.
stream._non_atomic_requests = blocking_stream._non_atomic_requests = set(connections)  # type: ignore[attr-defined]


def _respond(request: HttpRequest, visit: Visit) -> HttpResponseBase:
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
        viewer, granted = _admit(request, names)
        if not granted.names:
            raise _refusal(request, viewer)
        return answer(request, viewer, granted, visit)
    except LimitReached as limit:
        return _limited(request, limit)
    except (DatabaseError, HistoryUnavailable):
        return _limited(request, LimitReached("unavailable", 0))


Answer = Callable[[HttpRequest, Viewer, Grant, Visit], HttpResponseBase]


def _answer_for(request: HttpRequest) -> Answer:
    accept = request.headers.get("Accept", "")
    if accept == sse.CONTENT_TYPE:  # as every EventSource says: there is nothing to weigh
        return _stream
    if len(accept) > MAX_ACCEPT:
        raise Problem(HTTPStatus.NOT_ACCEPTABLE, f"The Accept header is longer than {MAX_ACCEPT} characters.")
    answers: dict[str, Answer] = {
        sse.CONTENT_TYPE: _stream,
        "application/json": _history,
        "text/html": _snapshot,
    }
    try:
        accepted = {name: type for name in answers if (type := request.accepted_type(name)) is not None}
    except (ValueError, LookupError):  # a parameter that can't be decoded, or in a code that nobody knows
        accepted = {}
    # RFC 9110, 12.5.1: their order means nothing. Of equals it is the stream, for htmx 4 names HTML before it.
    wanted = max(accepted, key=lambda name: (accepted[name].quality, accepted[name].specificity), default=None)
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
        rates.take_of_nobody(address_of(request))  # a guess counts too
        raise Problem(HTTPStatus.UNAUTHORIZED, failure.detail, WWW_Authenticate=failure.challenge) from None
    rates.take(viewer, len(names))
    return viewer, grant(viewer, names)


def _refusal(request: HttpRequest, viewer: Viewer) -> Problem:
    known = viewer.is_user or viewer.proof is not None
    if "Authorization" in request.headers and not known:  # nobody understood it
        return Problem(HTTPStatus.UNAUTHORIZED, "The token does not hold.", WWW_Authenticate="Bearer")
    return Problem(HTTPStatus.NOT_FOUND, "There is nothing under these names, or not for you.")


# -- a stream ---------------------------------------------------------------------------------------------------------


def _stream(request: HttpRequest, viewer: Viewer, granted: Grant, visit: Visit) -> HttpResponseBase:
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
    stream = visit.open(viewer, client, granted, cursor, garbage=garbage)
    return EventStreamResponse(stream, request.scope.get(OUTLET))


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
    return limited(limit, request.headers, wants_stream=_answer_for(request) is _stream)


# -- pages and snapshots ----------------------------------------------------------------------------------------------


def _history(request: HttpRequest, viewer: Viewer, granted: Grant, visit: Visit) -> HttpResponseBase:
    text = _cursor_text(request)
    try:
        cursor = parse_cursor(text) if text else None
    except InvalidCursor as error:
        raise Problem(HTTPStatus.BAD_REQUEST, str(error)) from error
    page = history_page(list(granted.names), cursor, viewer.user)
    rates.charge(viewer, page.read)
    return JsonResponse({**page.content, "refused": granted.refused}, headers={"Cache-Control": "private, no-store"})


def _snapshot(request: HttpRequest, viewer: Viewer, granted: Grant, visit: Visit) -> HttpResponseBase:
    if len(granted.names) != 1:
        raise Problem(HTTPStatus.BAD_REQUEST, "A snapshot is of one topic.")
    show = request.GET.get("show", "") or "items"
    if show not in _SHOWN:
        raise Problem(HTTPStatus.BAD_REQUEST, 'show is "items", "count" or "value".')
    topic = next(iter(granted.names))
    try:
        text = _SHOWN[show](request, topic, viewer)
    except FeedError as error:
        raise Problem(HTTPStatus.NOT_ACCEPTABLE, _NOTHING[show]) from error
    return HttpResponse(text, headers={"Cache-Control": "private, no-store"})


def _items(request: HttpRequest, topic: str, viewer: Viewer) -> str:
    limit, insert = request.GET.get("limit", ""), request.GET.get("insert", "")
    if limit and not re.fullmatch(r"[1-9][0-9]{0,3}", limit):
        raise Problem(HTTPStatus.BAD_REQUEST, "limit is a number of items, from 1 to 9999.")
    if insert not in {"", *html.INSERT}:
        raise Problem(HTTPStatus.BAD_REQUEST, 'insert is "prepend" or "append".')
    count = int(limit or 0)
    rates.take_items(viewer, items_looked_at(topic, count))
    return snapshots.snapshot(topic, viewer.user, count, insert)


def _count(request: HttpRequest, topic: str, viewer: Viewer) -> str:
    return snapshots.count_snapshot(topic)


def _value(request: HttpRequest, topic: str, viewer: Viewer) -> str:
    key = request.GET.get("key")
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isprintable()):
        raise Problem(HTTPStatus.BAD_REQUEST, f"key is the primary key of a row, 1 to {MAX_KEY} characters.")
    return snapshots.value_snapshot(topic, viewer.user, key)


#: What a snapshot may show; and what is said where a topic has nothing of the kind.
_SHOWN: dict[str, Callable[[HttpRequest, str, Viewer], str]] = {"items": _items, "count": _count, "value": _value}
_NOTHING = {
    "items": "This topic has no items to show; ask for its stream.",
    "count": "This topic has no items that could be counted for everybody; ask for its stream.",
    "value": "This topic has no rows to find by a key; ask without one for its newest event.",
}
