"""``application = livefeed.asgi.wrap(get_asgi_application())``: what a Django view can't do for its stream.

* Flow control under Daphne, whose ``send()`` never waits: without it a client that does not read fills the memory.
* A limit on how long one write may wait for a client, and the kernel for its word (LIVEFEED_SEND_TIMEOUT).
* Containment: an error after the first byte would leave the connection open for ever, and break Daphne for good.
* Goodbyes: on SIGTERM every stream ends with ``livefeed-closing``; uvicorn and granian would wait for ever.
* The short way out: on servers whose ``send`` we know, a flush of events writes to the connections itself.
* A door: requests for streams are let in to Django a few at a time, so that a crowd of them keeps nobody else waiting.
* The short way in: those for our own URL are answered by one job in one thread, middleware and all (``handler``).

Everything but event streams, and what asks for them, passes through untouched.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
import weakref
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import lru_cache
from http import HTTPStatus
from types import FrameType
from typing import Any, NoReturn

from django.conf import settings as django_settings
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponse
from django.urls import get_script_prefix, get_urlconf
from django.utils.datastructures import CaseInsensitiveMapping
from django.utils.translation import get_language

from . import origins, sse
from .addresses import address_among
from .conf import settings
from .daphne import DaphneFlow, daphne_requests
from .door import Passage, door
from .exceptions import LimitReached
from .handler import StreamHandler, takes_the_short_way
from .links import stream_url
from .outlets import OUTLET, Message, Rest, Write, begin
from .refusing import Problem, limited
from .roster import get_roster
from .sockets import give_up_after
from .streams import own_block

logger = logging.getLogger("livefeed.asgi")

Receive = Callable[[], Awaitable[Message]]
Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Receive, Write], Awaitable[None]]

#: Seconds between two looks for writes that wait too long.
REAP_EVERY = 0.5
#: Bytes of a body that a request for a stream may have, and seconds in which it has to come.
MAX_BODY, BODY_SECONDS = 64 * 1024, 30.0
#: The methods that may get a stream.
READING = ("GET", "HEAD")
#: Whose ``send`` a flush may start itself, by its module, besides Daphne's.
DRIVEN = ("uvicorn.protocols.http.", "hypercorn.protocol.")


def wrap(application: Application) -> Wrapped:
    """Return the ASGI application, its event streams with flow control, send timeout, containment and a clean end."""
    return Wrapped(application)


class Wrapped:
    """An ASGI application whose event streams are guarded."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self._for_streams: Any = StreamHandler() if takes_the_short_way(application) else application

    async def __call__(self, scope: Scope, receive: Receive, send: Write) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        guard = Guard(send)
        if guard.daphne is not None and daphne_requests().stopping:
            guard.abort()  # the client comes back to another process
            return
        try:
            with daphne_requests().under_way(guard.daphne):
                application = self.application
                if (ours := _is_for_us(scope)) or _asks_for_stream(scope):
                    receive = await guard.let_in(scope, receive)
                    if isinstance(application, ASGIHandler) and _may_be_driven(send):
                        scope[OUTLET] = guard  # a copy of the scope would be 600 bytes more per stream
                    application = self._for_streams if ours else application
                await application(scope, receive, guard.send)
        except Answered:
            pass
        except asyncio.CancelledError:
            if guard.timed_out:
                return
            await guard.last_words()
            raise
        except Exception:
            if not guard.streaming:
                raise
            logger.exception("An event stream failed after its first byte; the connection is closed.")
            guard.abort()
        else:
            if guard.streaming and not guard.finished:
                guard.abort()
        finally:
            scope.pop(OUTLET, None)
            guard.release()


class Answered(Exception):
    """A request that has its answer, and does not come to Django."""


class Guard:
    """Stands between Django and the server for one request; does nothing until an event stream starts."""

    __slots__ = ("_flow", "_passage", "_send", "_task", "daphne", "finished", "sending_since", "streaming", "timed_out")

    def __init__(self, send: Write) -> None:
        self._send = send
        self.daphne = DaphneFlow.of(send)
        self._passage: Passage | None = None
        self._flow: DaphneFlow | None = None
        self._task: asyncio.Task[Any] | None = None
        self.streaming = False
        self.finished = False
        self.timed_out = False
        self.sending_since: float | None = None

    async def let_in(self, scope: Scope, receive: Receive) -> Receive:
        """Wait until it is this request's turn; return what tells of its body.

        Raises :exc:`Answered` where that was the end of it: it can't be one of ours, or too many wait.
        """
        say_goodbye_on_signals()
        headers = _headers(scope)
        try:
            _check_query(scope)
            async with asyncio.timeout(BODY_SECONDS):
                receive = await whole(receive)
            self._passage = await door().enter(_address(scope, headers))
        except Problem as problem:
            await self._answer(problem.response(), headers)
        except TimeoutError:
            late = Problem(HTTPStatus.REQUEST_TIMEOUT, f"The request's body did not come within {BODY_SECONDS:.0f} s.")
            await self._answer(late.response(), headers)
        except LimitReached as limit:
            wants_stream = sse.CONTENT_TYPE in headers.get("accept", "")
            await self._answer(limited(limit, headers, wants_stream=wants_stream), headers)
        return receive

    async def _answer(self, response: HttpResponse, asked: Mapping[str, str]) -> NoReturn:
        """Answer in the place of Django."""
        for name, value in origins.headers(asked).items():
            response.headers[name] = value
        headers = [(name.lower().encode(), value.encode()) for name, value in response.items()]
        await self._send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await self._send({"type": "http.response.body", "body": response.content, "more_body": False})
        raise Answered

    def _leave_the_door(self) -> None:
        passage, self._passage = self._passage, None
        if passage is not None:
            passage.leave()

    async def send(self, message: Message) -> None:
        """Pass a message on, and come back when the client can take more."""
        if not self.streaming:
            if message["type"] == "http.response.start":
                self._leave_the_door()
                if _is_event_stream(message):
                    self._begin()
            await self._send(message)
            return
        self.finished = not message.get("more_body", False)
        await self._watched(self.write(message))

    @property
    def write(self) -> Write:
        """What hands a message to the server, also in the place of the application while that waits."""
        return self._send if self._flow is None else self._flow.write

    def wait_for(self, rest: Rest) -> Rest | None:
        """Watch a write that has to wait for its client; return what is left to wait for."""
        return begin(self._watched(rest))

    async def _watched(self, writing: Awaitable[None]) -> None:
        self.sending_since = asyncio.get_running_loop().time()
        try:
            await writing
        finally:
            self.sending_since = None

    def fail(self) -> None:
        """Cut the connection, because of the exception that is handled."""
        logger.exception("Writing to an event stream failed; the connection is closed.")
        self.abort()

    def _begin(self) -> None:
        self.streaming = True
        self._task = asyncio.current_task()
        self._flow = self.daphne
        give_up_after(self._connection(), settings.SEND_TIMEOUT)
        reaper().watch(self)
        say_goodbye_on_signals()

    def _connection(self) -> Any:
        """Return the connection's socket, where the server offers a way to it."""
        if self.daphne is not None:
            return self.daphne.connection
        told = getattr(self._transport, "get_extra_info", None)
        return told("socket") if callable(told) else None

    @property
    def _transport(self) -> Any:
        return getattr(getattr(self._send, "__self__", None), "transport", None)  # uvicorn

    async def last_words(self) -> None:
        """Say goodbye in the place of an application that was cancelled: the server stops."""
        if self.streaming and not self.finished:
            body = own_block("closing", {"reason": "shutdown"})
            with contextlib.suppress(Exception):
                await self.send({"type": "http.response.body", "body": body, "more_body": False})

    def time_out(self) -> None:
        """Disconnect a client that has not read for too long."""
        self.timed_out = True
        if not self.abort() and self._task is not None:
            self._task.cancel()

    def abort(self) -> bool:
        """Cut the connection without waiting for what is not sent; return False where the server offers no way to."""
        if self.daphne is not None:
            self.daphne.abort()
            return True
        abort = getattr(self._transport, "abort", None)  # of asyncio's transport, or uvloop's
        if callable(abort):
            abort()
        return callable(abort)

    def release(self) -> None:
        """Forget the request."""
        self._leave_the_door()
        if self.streaming:
            reaper().forget(self)
            if self._flow is not None:
                self._flow.stop()


def _may_be_driven(send: Write) -> bool:
    """Tell whether a ``send`` is one that we know, and that may be started outside of a task: it asks for none.

    A middleware's, around us, may be anything.
    """
    owner = type(getattr(send, "__self__", None)).__module__
    return DaphneFlow.of(send) is not None or owner.startswith(DRIVEN)


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


async def whole(receive: Receive) -> Receive:
    """Wait until the body of a request is there, and return what tells of it again.

    Django waits for it before it looks at anything else, and one that never comes must not keep a place behind the
    door. Raises :exc:`Problem` for more than MAX_BODY bytes: who asks for a stream sends none.
    """
    messages: list[Message] = []  # a deque, empty for as long as a stream lasts, takes 600 bytes
    size, more = 0, True
    while more:
        message = await receive()
        messages.append(message)
        more = message["type"] == "http.request" and bool(message.get("more_body", False))
        size += len(message.get("body", b""))
        if size > MAX_BODY:
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "A request for a stream has no body.")

    async def again() -> Message:
        return messages.pop(0) if messages else await receive()

    return again


def _is_for_us(scope: Scope) -> bool:
    """Tell whether a request is for our view, by where it goes."""
    try:
        return scope.get("method", "GET") in READING and str(scope.get("path", "")).endswith(_own_path())
    except Exception:  # the site's URLs can't be loaded, or we are not among them: that is for Django to say
        return False


def _own_path() -> str:
    """Return :func:`stream_url` as it is outside of a request. Every request of the site is held against it."""
    return _found_path(get_urlconf() or django_settings.ROOT_URLCONF, get_script_prefix(), get_language())


@lru_cache(maxsize=64)
def _found_path(urlconf: Any, prefix: str, language: str | None) -> str:
    return stream_url()


def _asks_for_stream(scope: Scope) -> bool:
    """Tell whether a request asks for nothing but a stream, somewhere on the site.

    htmx 4 names streams in all that it asks for: pages of the site don't wait at our door.
    """
    wanted = (b"accept", sse.CONTENT_TYPE.encode())
    headers = ((name.lower(), value.strip()) for name, value in scope.get("headers", ()))
    return scope.get("method", "GET") in READING and wanted in headers


def _is_event_stream(message: Message) -> bool:
    wanted = sse.CONTENT_TYPE.encode()
    return any(name.lower() == b"content-type" and value.startswith(wanted) for name, value in message["headers"])


class Reaper:
    """Disconnects the clients of one event loop that keep a write waiting for LIVEFEED_SEND_TIMEOUT seconds."""

    def __init__(self) -> None:
        self._guards: set[Guard] = set()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, guard: Guard) -> None:
        self._guards.add(guard)
        if self._timer is None and settings.SEND_TIMEOUT:
            self._timer = self._loop.call_later(REAP_EVERY, self._reap)

    def forget(self, guard: Guard) -> None:
        self._guards.discard(guard)

    def _reap(self) -> None:
        limit = self._loop.time() - settings.SEND_TIMEOUT
        for guard in list(self._guards):
            if guard.sending_since is not None and guard.sending_since < limit and not guard.timed_out:
                logger.info("A client did not read for %s s and is disconnected.", settings.SEND_TIMEOUT)
                guard.time_out()
        self._timer = self._loop.call_later(REAP_EVERY, self._reap) if self._guards else None


_reapers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Reaper] = weakref.WeakKeyDictionary()


def reaper() -> Reaper:
    """Return the reaper of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _reapers:
        _reapers[loop] = Reaper()
    return _reapers[loop]


_goodbyes: dict[int, Any] = {}


def say_goodbye_on_signals() -> None:
    """Chain ourselves in front of the server's handlers of SIGTERM and SIGINT: first the goodbyes, then its own way.

    Done when the first stream is asked for, in the main thread only: earlier the server has not set its handlers yet,
    and later a stream may begin behind the signal and keep the server from ending. A second signal goes straight to it.
    """
    if _goodbyes or not settings.DRAIN_SECONDS or threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        previous = signal.getsignal(number)
        _goodbyes[number] = previous
        if callable(previous) and previous is not signal.default_int_handler:
            signal.signal(number, _Goodbye(loop, previous))


class _Goodbye:
    """A signal handler that drains the streams before it lets the previous handler stop the server."""

    def __init__(self, loop: asyncio.AbstractEventLoop, previous: Callable[[int, FrameType | None], Any]) -> None:
        self._loop = loop
        self._previous = previous
        self._task: asyncio.Task[None] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._task is not None or self._loop.is_closed():
            self._previous(number, frame)
        else:
            self._loop.call_soon_threadsafe(self._begin, number)

    def _begin(self, number: int) -> None:
        if self._task is None:
            self._task = self._loop.create_task(self._drain(number))

    async def _drain(self, number: int) -> None:
        try:
            await get_roster().drain(settings.DRAIN_SECONDS)
            await daphne_requests().end(settings.DRAIN_SECONDS)
        finally:
            self._previous(number, None)
