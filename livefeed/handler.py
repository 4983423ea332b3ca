"""The short way in: a request for a stream is one job in one thread, middleware and all.

Under ASGI, Django runs each hook of a synchronous middleware in a thread, there and back again, and makes that thread
for one request only, with database connections of its own. Here the middleware is the same, in the order of
``MIDDLEWARE``, but in its synchronous form, as under WSGI; so it is called without changing threads, and the threads
live on for some seconds, with their connections.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple, ParamSpec, TypeVar

from asgiref.sync import SyncToAsync
from django.conf import settings as django_settings
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.signals import request_finished, request_started
from django.http.response import HttpResponseBadRequest, HttpResponseBase
from django.urls import set_script_prefix
from django.utils.module_loading import import_string

from .door import Passage
from .entrance import BODY, PASSAGE
from .outlets import END, Message, part
from .responses import EventStreamResponse, start_of
from .threads import Threads, kept_connections
from .views import blocking_stream, stream
from .visits import VISIT, Visit

P = ParamSpec("P")
T = TypeVar("T")

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = MutableMapping[str, Any]

#: The response to a request, for whoever closes it.
Answers = deque[HttpResponseBase]

#: Threads in which responses are closed: at a server's end thousands of them are, in one moment.
CLOSING = 2


class Opening(NamedTuple):
    """A stream that nobody has changed, and the message with which its response starts.

    To Django its request is over: a thread's work for it is done, and so are its caches and connections.
    """

    start: Message
    response: EventStreamResponse


class StreamHandler(ASGIHandler):
    """Django's handler of requests, for those for streams."""

    def __init__(self) -> None:
        super().__init__()
        # The door lets in a few at a time, and one that hangs must not keep others out.
        self._answering = _in_thread(self._answer, Threads(0))
        self._closing = _in_thread(_close, Threads(CLOSING))

    def load_middleware(self, is_async: bool = False) -> None:
        """Load the middleware in its synchronous form."""
        super().load_middleware(is_async=False)

    def make_view_atomic(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """Return a view as it is to be called: ours in its blocking form, but not where a project has decorated it."""
        made: Callable[..., Any] = super().make_view_atomic(blocking_stream if view is stream else view)
        return made

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        """Answer a request whose body is in its scope, and stay with it until its stream ends or its client leaves.

        Django's handler calls it, so that whatever a site's tools have put around that one's ``__call__`` is there too.
        """
        response: HttpResponseBase | None = None
        leaving = _Leaving(asyncio.current_task())
        listening = asyncio.ensure_future(self.listen_for_disconnect(receive))
        listening.add_done_callback(leaving)
        try:
            answer = await self._ask(scope, scope.pop(BODY))
            if isinstance(answer, Opening):
                start, stream = answer.start, answer.response.begin()
                del answer  # as long as a stream lasts, nothing is held that is not needed
                try:
                    if not leaving.took_place():  # a rule of the site's may have caught what was to end it
                        await send(start)
                        del start
                        async for chunk in stream:
                            await send(part(chunk))
                            del chunk
                        await send(END)
                finally:
                    stream.drop()
            else:
                response = answer
                if not leaving.took_place():
                    await self.send_response(response, send)  # type: ignore[arg-type]
        except asyncio.CancelledError:
            if not leaving.took_place():
                raise
        finally:
            leaving.is_over()
            listening.cancel()
            if response is not None:
                await asyncio.shield(self._closing(deque([response])))

    async def _ask(self, scope: Scope, body: bytes) -> HttpResponseBase | Opening:
        answers: Answers = deque(maxlen=1)
        passage: Passage = scope.pop(PASSAGE)
        make_room = partial(asyncio.get_running_loop().call_soon_threadsafe, passage.leave)
        visit = scope[VISIT] = Visit()
        try:
            with visit:
                answer = await self._answering(scope, body, visit, answers, make_room)
                del scope[VISIT]
                return answer
        except BaseException:
            if not visit.has_begun:
                passage.leave()
            if answers:
                await asyncio.shield(self._closing(answers))
            raise

    def _answer(
        self, scope: Scope, body: bytes, visit: Visit, answers: Answers, make_room: Callable[[], object]
    ) -> HttpResponseBase | Opening:
        visit.has_begun = True
        try:
            return self._response_to(scope, body, visit, answers)
        finally:  # also where the client has left long ago: who comes and goes has no more threads than who stays
            with suppress(RuntimeError):  # the loop is closed
                make_room()

    def _response_to(self, scope: Scope, body: bytes, visit: Visit, answers: Answers) -> HttpResponseBase | Opening:
        with kept_connections() as keep:
            set_script_prefix(get_script_prefix(scope))
            request_started.send(sender=ASGIHandler, scope=scope)
            request, refusal = self.create_request(scope, BytesIO(body))
            try:
                response: HttpResponseBase = (
                    self.get_response(request) if request is not None else refusal or HttpResponseBadRequest()
                )
            except asyncio.CancelledError:  # what a rule awaited was broken off
                request_finished.send(sender=ASGIHandler)
                raise
            response._handler_class = ASGIHandler  # type: ignore[attr-defined]
            if request is not None and isinstance(response, EventStreamResponse) and response.is_untouched:
                keep()
                if response.close_early(request):
                    return Opening(start_of(response), response)
            answers.append(response)
        if visit.is_broken_off:  # nobody waits for it
            _close(answers)
        return response


class _Leaving:
    """Cancels the sending of a response when its client has left."""

    __slots__ = ("_sending", "_told")

    def __init__(self, sending: asyncio.Task[Any] | None) -> None:
        self._sending = sending
        self._told = False

    def __call__(self, listening: asyncio.Future[None]) -> None:
        if not listening.cancelled() and listening.exception() is not None and self._sending is not None:
            self._told = self._sending.cancel()

    def took_place(self) -> bool:
        """Tell whether that is all that the sending was cancelled for."""
        return self._told and self._sending is not None and not self._sending.uncancel()

    def is_over(self) -> None:
        """Cancel nothing any more, also where it is known already that the client has left."""
        self._sending = None


def _close(answers: Answers) -> None:
    """Close a response, if nobody else did: when its client leaves, its thread may just be done with it."""
    with kept_connections(), suppress(IndexError):
        answers.pop().close()


def _in_thread(job: Callable[P, T], threads: Threads) -> SyncToAsync[P, T]:
    """Make a job a request's: context variables go along and come back, and coroutines that it calls run here."""
    return SyncToAsync(job, thread_sensitive=False, executor=threads)  # type: ignore[arg-type]


def takes_the_short_way(application: Any) -> bool:
    """Tell whether requests may go the short way: to Django's own handler, where no middleware is for async only."""
    middleware = map(import_string, django_settings.MIDDLEWARE if type(application) is ASGIHandler else ())
    return type(application) is ASGIHandler and all(getattr(each, "sync_capable", True) for each in middleware)
