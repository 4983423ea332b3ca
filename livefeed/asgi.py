"""``application = livefeed.asgi.wrap(get_asgi_application())``: what a Django view can't do for its stream.

* A door: requests for streams are let in to Django a few at a time, so that a crowd of them keeps nobody else waiting
  (``entrance``, ``door``).
* The short way in: those for our own URL are answered by one job in one thread, middleware and all (``handler``).
* Flow control under Daphne, a limit on how long one write may wait for a client (``guard``).
* The short way out: on servers whose ``send`` we know, a flush writes to the connections itself (``outlets``).
* Containment: an error after the first byte would leave the connection open for ever, and break Daphne for good.
* Goodbyes: on SIGTERM every stream ends with ``livefeed-closing`` (``goodbyes``).

Everything but event streams, and what asks for them, passes through untouched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any

from django.conf import settings as django_settings
from django.core.handlers.asgi import ASGIHandler
from django.urls import get_script_prefix, get_urlconf
from django.utils.translation import get_language

from . import sse
from .daphne import DaphneFlow, daphne_requests
from .entrance import BODY, PASSAGE, Answered, Receive, Scope, followed_by, let_in
from .goodbyes import say_goodbye_on_signals
from .guard import Guard
from .handler import StreamHandler, takes_the_short_way
from .links import stream_url
from .outlets import OUTLET, Write

logger = logging.getLogger("livefeed.asgi")

Application = Callable[[Scope, Receive, Write], Awaitable[None]]

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
        self._for_streams: Any = StreamHandler() if takes_the_short_way(application) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Write) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        guard = Guard(send)
        if guard.daphne is not None and daphne_requests().stopping:
            guard.abort()  # the client comes back to another process
            return
        try:
            guard.begin()
            if (ours := _is_for_us(scope)) or _asks_for_stream(scope):
                say_goodbye_on_signals()
                guard.passage = await let_in(scope, receive, send)
                if isinstance(self.application, ASGIHandler) and _may_be_driven(send):
                    scope[OUTLET] = guard  # a copy of the scope would be 600 bytes more per stream
                if ours and self._for_streams is not None:
                    scope[PASSAGE], guard.passage = guard.passage, None  # its thread goes on when its client has left
                    await self._for_streams(scope, receive, guard.send)
                else:
                    await self.application(scope, followed_by(receive, scope.pop(BODY)), guard.send)
            else:
                await self.application(scope, receive, guard.send)
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
            guard.passage = scope.pop(PASSAGE, guard.passage)
            guard.release()


def _may_be_driven(send: Write) -> bool:
    """Tell whether a ``send`` is one that we know, and that may be started outside of a task: it asks for none.

    A middleware's, around us, may be anything.
    """
    owner = type(getattr(send, "__self__", None)).__module__
    return DaphneFlow.of(send) is not None or owner.startswith(DRIVEN)


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
