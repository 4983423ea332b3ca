"""The short way in: middleware and rules in one job of a thread, and to a client all is as on the ordinary way."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_finished, request_started
from django.db import connection, connections
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import include, path

from livefeed import LiveFeed, acursor, apublish
from livefeed import door as door_module
from livefeed.asgi import wrap
from livefeed.handler import StreamHandler
from livefeed.leases import get_leases
from livefeed.models import Lease
from livefeed.roster import Roster
from livefeed.testing import open_stream
from livefeed.views import stream as stream_view
from tests.reading import LIMIT, eventually

pytest_plugins = ["tests.reading_fixtures"]

PLAIN = "plain"


def site() -> Any:
    """Return the whole site, as a server is given it."""
    return wrap(get_asgi_application())


@pytest.fixture
def opened(roster: Roster) -> Callable[..., Any]:
    """Return ``open_stream``, by the short way."""
    application = site()
    return lambda *topics, **rest: open_stream(*topics, application=rest.pop("application", application), **rest)


@contextmanager
def finishing() -> Iterator[list[Any]]:
    """Note for whom ``request_finished`` is sent."""
    finished: list[Any] = []

    def note(sender: Any, **kwargs: Any) -> None:
        finished.append(sender)

    request_finished.connect(note)
    try:
        yield finished
    finally:
        request_finished.disconnect(note)


# -- middleware -------------------------------------------------------------------------------------------------------


class Hooks:
    """A middleware of hooks; it notes in which thread each was called."""

    called: list[tuple[str, threading.Thread]] = []

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response

    def _note(self, hook: str) -> None:
        self.called.append((hook, threading.current_thread()))

    def __call__(self, request: Any) -> Any:
        self._note("request")
        response = self._get_response(request)
        self._note("response")
        response["X-Hook"] = "déjà vu"
        response.set_cookie("hook", "crumb")
        return response

    def process_view(self, request: Any, view: Any, args: Any, kwargs: Any) -> None:
        assert view is stream_view, "middleware is told of the view by its own name"
        self._note("view")


class Outer:
    """A middleware of functions, as the documentation of Django writes them."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response

    def __call__(self, request: Any) -> Any:
        Hooks.called.append(("outer", threading.current_thread()))
        return self._get_response(request)


@pytest.fixture
def hooks(settings: Any) -> Iterator[list[tuple[str, threading.Thread]]]:
    settings.MIDDLEWARE = [f"{__name__}.Outer", *settings.MIDDLEWARE, f"{__name__}.Hooks"]
    Hooks.called.clear()
    yield Hooks.called
    Hooks.called.clear()


@pytest.fixture
def asked(with_feed: Callable[[type[LiveFeed]], None]) -> list[threading.Thread]:
    """A feed, ``asked``, whose rule notes in which thread it was asked."""
    threads: list[threading.Thread] = []

    class Asked(LiveFeed):
        name = "asked"

        def has_view_permission(self, user: Any, topic: str) -> bool:
            threads.append(threading.current_thread())
            return True

    with_feed(Asked)
    return threads


async def test_every_middleware_is_run_in_its_order_and_in_the_thread_of_the_rule(
    roster: Roster, hooks: list[tuple[str, threading.Thread]], asked: list[threading.Thread]
) -> None:
    async with open_stream("asked", application=site()) as stream:
        assert (await stream.next()).type == "livefeed-open"
    assert [hook for hook, _ in hooks] == ["outer", "request", "view", "response"]
    assert len({thread for _, thread in hooks} | set(asked)) == 1
    assert asked[0] is not threading.current_thread()


async def test_headers_and_cookies_of_middleware_reach_the_client(
    roster: Roster, hooks: list[tuple[str, threading.Thread]]
) -> None:
    async with open_stream(PLAIN, application=site()) as stream:
        assert stream.headers["x-hook"] == "déjà vu"
        assert stream.headers["set-cookie"].startswith("hook=crumb")
        assert stream.headers["content-type"] == "text/event-stream"
        await stream.next()
        await apublish(PLAIN, 1)
        assert (await stream.next()).json == 1


class AsyncOnly:
    """A middleware that can't be run in a thread."""

    async_capable, sync_capable = True, False
    called = 0

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        assert iscoroutinefunction(get_response)
        self._get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: Any) -> Any:
        type(self).called += 1
        return await self._get_response(request)


async def test_where_a_middleware_is_for_async_only_requests_go_the_ordinary_way(roster: Roster, settings: Any) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.AsyncOnly"]
    application = site()
    assert application._for_streams is None
    async with open_stream(PLAIN, application=application) as stream:
        assert (await stream.next()).type == "livefeed-open"
    assert AsyncOnly.called == 1


class OwnHandler(ASGIHandler):
    """A project's own."""


def test_only_djangos_own_handler_is_replaced() -> None:
    assert isinstance(site()._for_streams, StreamHandler)
    assert wrap(OwnHandler())._for_streams is None


@pytest.mark.parametrize("handler", [ASGIHandler, OwnHandler])
async def test_what_a_tool_has_put_around_djangos_handler_is_around_streams_too(
    roster: Roster, monkeypatch: pytest.MonkeyPatch, handler: type[ASGIHandler]
) -> None:
    """Sentry does so: without it one visitor's errors would tell of another."""
    application, original, seen = wrap(handler()), ASGIHandler.__call__, []

    async def traced(self: ASGIHandler, scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await original(self, scope, receive, send)

    monkeypatch.setattr(ASGIHandler, "__call__", traced)
    async with open_stream(PLAIN, application=application) as stream:
        assert (await stream.next()).type == "livefeed-open"
    assert seen == ["/livefeed/"]


def carrying(body: bytes, application: Any) -> Any:
    """Return an application whose requests all have a body."""

    async def carry(scope: Any, receive: Any, send: Any) -> None:
        async def received() -> Any:
            message = await receive()
            return {**message, "body": body} if message["type"] == "http.request" else message

        await application(scope, received, send)

    return carry


@pytest.mark.parametrize("handler", [ASGIHandler, OwnHandler])
async def test_the_body_of_a_request_is_not_kept_as_long_as_its_stream_lasts(
    roster: Roster, handler: type[ASGIHandler]
) -> None:
    body = b"x" * 60_000
    application = carrying(body, wrap(handler()))
    before = sys.getrefcount(body)
    async with open_stream(PLAIN, application=application) as stream:
        assert (await stream.next()).type == "livefeed-open"
        gc.collect()
        assert sys.getrefcount(body) == before


class Breaks(Outer):
    """A middleware with a bug."""

    def __call__(self, request: Any) -> Any:
        raise ZeroDivisionError("oops")


async def test_a_middleware_that_fails_is_an_error_of_the_site_and_the_next_request_goes_on(
    roster: Roster, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with override_settings(MIDDLEWARE=[f"{__name__}.Breaks"]):
        async with open_stream(PLAIN, application=site()) as stream:
            assert stream.status == 500
    assert "ZeroDivisionError" in caplog.text
    async with open_stream(PLAIN, application=site()) as stream:
        assert stream.status == 200


class Instead(Outer):
    """A middleware that answers in the place of the view, after the view."""

    def __call__(self, request: Any) -> Any:
        self._get_response(request)
        return HttpResponse("closed", status=403)


async def test_a_stream_that_a_middleware_threw_away_is_given_up(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_KEEPALIVE = 0.1
    settings.MIDDLEWARE = [f"{__name__}.Instead", *settings.MIDDLEWARE]
    async with open_stream(PLAIN, application=site()) as stream:
        assert stream.status == 403
    await eventually(lambda: len(roster) == 0, "the stream is gone")
    await eventually(no_lease, "no lease is left")


async def no_lease() -> bool:
    return not await Lease.objects.aexists()


class Upper(Outer):
    """A middleware that changes what is streamed, and looks at the request meanwhile."""

    def __call__(self, request: Any) -> Any:
        response = self._get_response(request)
        original = response.streaming_content

        async def upper() -> Any:
            async for part in original:
                yield part.upper() + request.path.encode()

        response.streaming_content = upper()
        return response


async def test_a_middleware_that_wrapped_the_stream_is_not_passed_by(roster: Roster, settings: Any) -> None:
    settings.MIDDLEWARE = [f"{__name__}.Upper", *settings.MIDDLEWARE]
    async with open_stream(PLAIN, application=site()) as stream:
        assert b"LIVEFEED-OPEN" in await stream.portion()
        await apublish(PLAIN, "quiet")
        assert (await stream.portion()).endswith(b"DATA: QUIET\n\n/livefeed/")


class Ledger(Outer):
    """A middleware that has something to close with the response, as one that traces or counts has."""

    closed: list[str] = []

    def __call__(self, request: Any) -> Any:
        response = self._get_response(request)
        response._resource_closers.append(lambda: self.closed.append(request.path))
        return response


async def test_what_a_middleware_has_to_close_is_closed_when_the_stream_ends(roster: Roster, settings: Any) -> None:
    settings.MIDDLEWARE = [f"{__name__}.Ledger", *settings.MIDDLEWARE]
    Ledger.closed.clear()
    with finishing() as finished:
        async with open_stream(PLAIN, application=site()) as stream:
            assert (await stream.next()).type == "livefeed-open"
            await apublish(PLAIN, "quiet")
            assert (await stream.next()).data == "quiet"
            assert (Ledger.closed, finished) == ([], []), "to Django this request is as long as its stream"
        await eventually(lambda: finished, "the response is closed")
    assert Ledger.closed == ["/livefeed/"]
    await eventually(no_lease, "the stream is over")


class Replaces(Outer):
    """A middleware that takes the response's own ``close()`` in hand, as one that times requests may."""

    closed: list[str] = []

    def __call__(self, request: Any) -> Any:
        response = self._get_response(request)
        close = response.close
        response.close = lambda: (self.closed.append(request.path), close())
        return response


async def test_a_close_that_a_middleware_has_replaced_is_called_when_the_stream_ends(
    roster: Roster, settings: Any
) -> None:
    settings.MIDDLEWARE = [f"{__name__}.Replaces", *settings.MIDDLEWARE]
    Replaces.closed.clear()
    async with open_stream(PLAIN, application=site()) as stream:
        assert (await stream.next()).type == "livefeed-open"
        assert Replaces.closed == []
    await eventually(lambda: Replaces.closed, "the response is closed")
    assert Replaces.closed == ["/livefeed/"]
    await eventually(no_lease, "the stream is over")


# -- what belongs to a request ----------------------------------------------------------------------------------------

seen_by_the_rule: list[str] = []
colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


class Colours(Outer):
    """A middleware that sets a context variable."""

    def __call__(self, request: Any) -> Any:
        colour.set(request.GET.get("colour", "plain"))
        return self._get_response(request)


async def test_context_variables_of_a_middleware_are_there_for_the_rule_and_for_nobody_else(
    roster: Roster, settings: Any, with_feed: Callable[[type[LiveFeed]], None]
) -> None:
    class Coloured(LiveFeed):
        name = "coloured"

        def has_view_permission(self, user: Any, topic: str) -> bool:
            seen_by_the_rule.append(colour.get())
            return True

    with_feed(Coloured)
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.Colours"]
    application = site()
    for name in ("red", "blue"):
        async with open_stream("coloured", query=[("colour", name)], application=application) as stream:
            await stream.next()
    assert seen_by_the_rule == ["red", "blue"]
    assert colour.get() == "none"


async def test_a_rule_that_is_a_coroutine_runs_on_the_loop_of_the_server(
    opened: Callable[..., Any], with_feed: Callable[[type[LiveFeed]], None]
) -> None:
    loops: list[Any] = []

    class Awaited(LiveFeed):
        name = "awaited"

        async def has_view_permission(self, user: Any, topic: str) -> bool:
            loops.append(asyncio.get_running_loop())
            return True

    with_feed(Awaited)
    async with opened("awaited") as stream:
        await stream.next()
    assert loops[0] is asyncio.get_running_loop()


async def test_the_signals_of_a_request_are_sent_once_the_last_when_its_thread_is_done_with_it(
    opened: Callable[..., Any],
) -> None:
    told: list[tuple[str, Any]] = []

    def started(sender: Any, scope: Any, **kwargs: Any) -> None:
        told.append((f"started {scope['path']}", sender))

    def finished(sender: Any, **kwargs: Any) -> None:
        told.append(("finished", sender))

    request_started.connect(started)
    request_finished.connect(finished)
    try:
        async with opened(PLAIN) as stream:
            await stream.next()
            assert told == [("started /livefeed/", ASGIHandler), ("finished", ASGIHandler)]
        await eventually(no_lease, "the stream is over")
        assert len(told) == 2
    finally:
        request_started.disconnect(started)
        request_finished.disconnect(finished)


async def test_a_receiver_that_fails_when_a_request_is_over_is_logged_and_keeps_nobody_out(
    opened: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**kwargs: Any) -> None:
        raise ValueError("this receiver can't")

    request_finished.connect(fail)
    try:
        async with opened(PLAIN) as stream:
            assert (await stream.next()).type == "livefeed-open"
    finally:
        request_finished.disconnect(fail)
    await eventually(no_lease, "the stream is over")
    assert "A receiver of request_finished failed" in caplog.text
    assert "this receiver can't" in caplog.text


made: list[weakref.ref[Any]] = []


class Notes(Outer):
    """A middleware that notes which requests there are."""

    def __call__(self, request: Any) -> Any:
        made.append(weakref.ref(request))
        return self._get_response(request)


async def test_a_request_is_not_kept_as_long_as_its_stream_lasts(roster: Roster, settings: Any) -> None:
    settings.MIDDLEWARE = [f"{__name__}.Notes", *settings.MIDDLEWARE]
    made.clear()
    async with open_stream(PLAIN, user=await User.objects.acreate_user("ann"), application=site()) as stream:
        await stream.next()
        await eventually(lambda: gc.collect() >= 0 and made[0]() is None, "the request is gone")


async def test_pages_and_snapshots_go_the_same_way(opened: Callable[..., Any]) -> None:
    since = await acursor(PLAIN)
    await apublish(PLAIN, 1)
    async with opened(PLAIN, headers={"accept": "application/json"}, cursor=since) as page:
        assert page.status == 200
        assert [event["data"] for event in json.loads(await page.body())["events"]] == [1]
    async with opened(PLAIN, headers={"accept": "text/html"}) as snapshot:
        assert snapshot.status == 406, "nothing to show under this topic"


async def test_atomic_requests_hold_no_transaction_while_the_view_works(
    opened: Callable[..., Any], with_feed: Callable[[type[LiveFeed]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: list[bool] = []

    class Atomic(LiveFeed):
        name = "atomic"

        def has_view_permission(self, user: Any, topic: str) -> bool:
            inside.append(connection.in_atomic_block)
            return True

    with_feed(Atomic)
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    async with opened("atomic") as stream:
        await stream.next()
    assert inside == [False]


async def some_page(request: HttpRequest) -> HttpResponse:
    """A view of the site's own."""
    await asyncio.sleep(0)
    return HttpResponse("a page of the site")


urlpatterns = [
    path("blog/livefeed/", some_page),
    path("livefeed/", include("livefeed.urls")),
]


async def test_a_page_of_the_site_whose_url_ends_as_ours_does_is_answered_too(roster: Roster, settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    communicator: Any = ApplicationCommunicator(
        site(), {"type": "http", "method": "GET", "path": "/blog/livefeed/", "headers": [], "query_string": b""}
    )
    await communicator.send_input({"type": "http.request", "body": b""})
    start, body = [await communicator.receive_output(LIMIT) for _ in range(2)]
    assert (start["status"], body["body"]) == (200, b"a page of the site")
    await communicator.wait(LIMIT)


let_in: list[str] = []


def members_only(view: Callable[[HttpRequest], Awaitable[Any]]) -> Callable[[HttpRequest], Awaitable[Any]]:
    """A decorator as Django's own are: it hands on all that the view has."""

    @wraps(view)
    async def asks_first(request: HttpRequest) -> Any:
        if not request.GET.get("member"):
            return HttpResponse("members only", status=403)
        let_in.append(request.path)
        return await view(request)

    return asks_first


async def test_a_view_that_a_project_has_decorated_is_not_called_without(
    roster: Roster, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decorated = [path("", members_only(stream_view), name="stream")]
    monkeypatch.setattr(sys.modules[__name__], "urlpatterns", [path("livefeed/", include((decorated, "livefeed")))])
    settings.ROOT_URLCONF = __name__
    application = site()
    async with open_stream(PLAIN, application=application) as refused:
        assert refused.status == 403
    async with open_stream(PLAIN, query=[("member", "1")], application=application) as stream:
        assert (await stream.next()).type == "livefeed-open"
    assert let_in == ["/livefeed/"]
    await eventually(lambda: len(roster) == 0, "the stream is gone")


# -- clients that leave -----------------------------------------------------------------------------------------------


class Gate:
    """A rule that answers when it is told to."""

    def __init__(self, with_feed: Callable[[type[LiveFeed]], None]) -> None:
        self.go, self.asked = threading.Event(), threading.Event()
        gate = self

        class Gated(LiveFeed):
            name = "gated"

            def has_view_permission(self, user: Any, topic: str) -> bool:
                gate.asked.set()
                return gate.go.wait(LIMIT)

        with_feed(Gated)


@pytest.fixture
def gate(with_feed: Callable[[type[LiveFeed]], None]) -> Iterator[Gate]:
    gate = Gate(with_feed)
    yield gate
    gate.go.set()


async def test_a_client_that_leaves_while_a_rule_is_asked_leaves_nothing_behind(
    roster: Roster, opened: Callable[..., Any], gate: Gate
) -> None:
    async def connect() -> None:
        async with opened("gated") as stream:
            await stream.next()

    with finishing() as finished:
        connecting = asyncio.ensure_future(connect())
        await eventually(gate.asked.is_set, "the rule is asked")
        connecting.cancel()
        await asyncio.wait([connecting])
        assert not finished, "its thread is still at it"
        gate.go.set()
        await eventually(lambda: finished, "the request is over")
    assert len(roster) == 0
    await eventually(no_lease, "no lease is left")


async def test_clients_that_come_and_go_have_no_more_threads_than_those_who_stay(
    roster: Roster, opened: Callable[..., Any], settings: Any, with_feed: Callable[[type[LiveFeed]], None]
) -> None:
    settings.LIVEFEED_CONNECTING = 2
    go, at_once, most = threading.Event(), 0, 0
    changing = threading.Lock()

    class Slow(LiveFeed):
        name = "slow"

        def has_view_permission(self, user: Any, topic: str) -> bool:
            nonlocal at_once, most
            with changing:
                at_once += 1
                most = max(most, at_once)
            go.wait(LIMIT)
            with changing:
                at_once -= 1
            return True

    async def connect() -> None:
        async with opened("slow", timeout=LIMIT) as stream:
            await stream.next()

    with_feed(Slow)
    everybody = []
    for _ in range(6):
        everybody.append(asyncio.ensure_future(connect()))
        await asyncio.wait(everybody[-1:], timeout=0.05)
        everybody[-1].cancel()
    await eventually(lambda: at_once == 2, "two are at the rule")
    go.set()
    await asyncio.wait(everybody)
    async with opened("slow") as stream:
        assert (await stream.next()).type == "livefeed-open"
    assert most == 2
    await eventually(lambda: not at_once, "nobody is at the rule any more")
    await eventually(lambda: door_module.door()._inside == 0, "nobody is inside")


async def test_clients_that_leave_at_any_moment_leave_their_places_too(
    roster: Roster, opened: Callable[..., Any], settings: Any
) -> None:
    """Also before a thread has begun with them."""
    settings.LIVEFEED_CONNECTING = 2
    settings.LIVEFEED_CONNECTS_PER_MINUTE = 0

    async def connect() -> None:
        async with opened(PLAIN) as stream:
            await stream.next()

    for round in range(60):
        some = [asyncio.ensure_future(connect()) for _ in range(4)]
        await asyncio.sleep(round / 3000)
        for each in some:
            each.cancel()
        await asyncio.wait(some)
    await eventually(lambda: door_module.door()._inside == 0, "nobody is inside")


class Waits(Outer):
    """A middleware that takes its time."""

    asked, go = threading.Event(), threading.Event()

    def __call__(self, request: Any) -> Any:
        self.asked.set()
        self.go.wait(LIMIT)
        return self._get_response(request)


async def test_a_client_that_leaves_while_a_middleware_works_is_no_error(
    roster: Roster, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.Waits"]
    application = site()

    async def connect() -> None:
        async with open_stream(PLAIN, application=application) as stream:
            await stream.next()

    with finishing() as finished:
        connecting = asyncio.ensure_future(connect())
        await eventually(Waits.asked.is_set, "the middleware works")
        connecting.cancel()
        await asyncio.wait([connecting])
        Waits.go.set()
        await eventually(lambda: finished, "the request is over")
    assert not caplog.records, caplog.text
    assert len(roster) == 0


async def test_one_rule_that_hangs_keeps_nobody_out_for_ever(
    opened: Callable[..., Any], gate: Gate, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LIVEFEED_CONNECTING = 1
    monkeypatch.setattr(door_module, "LONGEST_STAY", 0.1)

    async def connect() -> None:
        async with opened("gated") as stream:
            await stream.next()

    connecting = asyncio.ensure_future(connect())
    await eventually(gate.asked.is_set, "the rule is asked")
    async with opened(PLAIN) as stream:
        assert (await stream.next()).type == "livefeed-open"
    gate.go.set()
    await asyncio.wait_for(connecting, LIMIT)


class Visitor:
    """A client as a server sees it: what is sent to it, and that it leaves."""

    def __init__(self, topic: str) -> None:
        self.sent: list[Any] = []
        self._scope = {
            **{"type": "http", "method": "GET", "path": "/livefeed/", "query_string": f"topic={topic}".encode()},
            "headers": [(b"accept", b"text/event-stream"), (b"host", b"testserver")],
        }
        self._told: asyncio.Queue[Any] = asyncio.Queue()
        self._told.put_nowait({"type": "http.request", "body": b""})

    def comes(self) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(site()(self._scope, self._told.get, self._send))

    def leaves(self) -> None:
        self._told.put_nowait({"type": "http.disconnect"})

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


@pytest.mark.parametrize("turns", range(5))
async def test_whoever_leaves_in_the_moment_in_which_their_stream_opens_leaves_nothing_behind(
    roster: Roster, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    visitor, opens = Visitor(PLAIN), roster.open

    async def open_late(*args: Any, **rest: Any) -> Any:
        stream = await opens(*args, **rest)
        visitor.leaves()
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            stream.drop()
            raise
        return stream

    monkeypatch.setattr(roster, "open", open_late)
    with finishing() as finished:
        await asyncio.wait_for(visitor.comes(), LIMIT)
        await eventually(lambda: finished, "the response is closed")
    assert len(finished) == 1
    await eventually(lambda: len(roster) == 0, "the stream is gone")
    await eventually(no_lease, "no lease is left")


@pytest.mark.parametrize("turns", range(6))
async def test_whoever_leaves_in_the_moment_in_which_their_lease_comes_leaves_nothing_behind(
    roster: Roster, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    visitor, run = Visitor(PLAIN), roster.hub.pool.run

    async def run_and_leave(job: Any, *args: Any) -> Any:
        answer = await run(job, *args)
        if job == get_leases().acquire_all:
            visitor.leaves()
            for _ in range(turns):
                await asyncio.sleep(0)
        return answer

    with monkeypatch.context() as patched, finishing() as finished:
        patched.setattr(roster.hub.pool, "run", run_and_leave)
        await asyncio.wait_for(visitor.comes(), LIMIT)
        await eventually(lambda: finished, "the request is over")
    await eventually(no_lease, "the lease is given back")
    assert len(roster) == 0


@pytest.mark.parametrize("stubborn", [False, True])
async def test_an_awaited_rule_whose_client_left_is_the_end_of_it_even_if_it_goes_on(
    roster: Roster, with_feed: Callable[[type[LiveFeed]], None], caplog: pytest.LogCaptureFixture, stubborn: bool
) -> None:
    asked = asyncio.Event()

    class Patient(LiveFeed):
        name = "patient"

        async def has_view_permission(self, user: Any, topic: str) -> bool:
            asked.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not stubborn:
                    raise
            return True

    with_feed(Patient)
    visitor = Visitor("patient")
    with finishing() as finished:
        serving = visitor.comes()
        await asked.wait()
        visitor.leaves()
        await asyncio.wait_for(serving, LIMIT)
        await eventually(lambda: finished, "the request is over")
    assert (len(finished), visitor.sent, caplog.records) == (1, [], [])
    await eventually(lambda: len(roster) == 0, "no stream is left")


async def test_who_leaves_while_the_answer_is_sent_cancels_nothing_behind_it(roster: Roster) -> None:
    """The news comes when all is said, and only the response has to be closed."""

    class Hasty(Visitor):
        async def _send(self, message: Any) -> None:
            await super()._send(message)
            if message["type"] == "http.response.start":
                self.leaves()
                await asyncio.sleep(0)

    visitor = Hasty("nothing")
    with finishing() as finished:
        await asyncio.wait_for(visitor.comes(), LIMIT)
    assert len(finished) == 1
    assert [message["type"] for message in visitor.sent] == ["http.response.start", "http.response.body"]


async def test_a_server_that_cancels_a_request_hears_of_it(roster: Roster) -> None:
    """Only a client's leaving is no cancellation: what a server does to its tasks is its own business."""
    scope = {
        **{"type": "http", "method": "GET", "path": "/livefeed/", "query_string": b"topic=plain"},
        "headers": [(b"accept", b"text/event-stream"), (b"host", b"testserver")],
    }
    sent: list[Any] = []
    messages = iter([{"type": "http.request", "body": b""}])

    async def receive() -> Any:
        for message in messages:
            return message
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    serving = asyncio.ensure_future(site()(scope, receive, send))
    await eventually(lambda: len(sent) > 1, "the stream has begun")
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert b"livefeed-closing" in sent[-1]["body"]
    assert len(roster) == 0
