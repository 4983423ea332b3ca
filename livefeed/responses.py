"""The response around a stream: its headers, and what is let go of as soon as the stream stands for itself."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

from . import sse
from .outlets import Message, Outlet
from .streams import EventStream

logger = logging.getLogger("livefeed.streams")

#: "private, no-store" for caches, "no-transform" and X-Accel-Buffering for proxies; with a Content-Encoding set,
#: Django's GZipMiddleware leaves the stream alone (it would make one gzip member of each event).
HEADERS = {
    "Cache-Control": "private, no-store, no-transform",
    "X-Accel-Buffering": "no",
    "Content-Encoding": "identity",
}


class EventStreamResponse(StreamingHttpResponse):
    """A response whose body is an :class:`~livefeed.streams.EventStream`, handed on as it is unless a middleware
    wrapped it."""

    def __init__(self, stream: EventStream, outlet: Outlet | None = None) -> None:
        super().__init__(stream, content_type=sse.CONTENT_TYPE, headers=HEADERS)
        self._stream = stream
        self._outlet = outlet

    @property
    def is_untouched(self) -> bool:
        """Whether no middleware has wrapped the stream."""
        untouched: bool = self._iterator is self._stream  # type: ignore[attr-defined]
        return untouched

    def close_early(self, request: HttpRequest) -> bool:
        """Close a request whose stream is untouched, and all of its response but the stream; return whether that is so.

        What a request holds, some kilobytes with its session and user, is not kept as long as its stream lasts. Where a
        middleware has given the response something to close, or a ``close`` of its own, that waits for the end of the
        stream.
        """
        self._closers.remove(request.close)
        request.close()
        if self._closers != [self._stream.close] or "close" in vars(self):
            return False
        self._closers.clear()
        try:
            self.close()
        except Exception:  # as a server would log it that closes a response
            logger.exception("A receiver of request_finished failed")
        return True

    @property
    def _closers(self) -> list[Callable[[], Any]]:
        closers: list[Callable[[], Any]] = self._resource_closers  # type: ignore[attr-defined]
        return closers

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.begin() if self.is_untouched else super().__aiter__()  # nothing may go past a middleware

    def begin(self) -> EventStream:
        """Return the stream itself, which a flush may write to from now on."""
        if self._outlet is not None:
            self._stream.use(self._outlet)
        return self._stream


def start_of(response: HttpResponseBase) -> Message:
    """Return the message with which a response starts."""
    headers = [(name.lower().encode("ascii"), value.encode("latin1")) for name, value in response.items()]
    cookies = [
        (b"set-cookie", cookie.output(header="").strip().encode("ascii")) for cookie in response.cookies.values()
    ]
    return {"type": "http.response.start", "status": response.status_code, "headers": headers + cookies}
