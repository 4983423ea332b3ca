"""A request on its way to a stream: it is answered in a thread, and its stream opened on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from contextvars import Context
from typing import Any, Self

from .access import Grant
from .cursors import Cursor
from .roster import get_roster
from .streams import EventStream
from .viewers import Viewer

#: Under this an ASGI scope has the request's :class:`Visit`, where it goes the short way (``handler``).
VISIT = "livefeed.visit"


class BrokenOff(Exception):
    """The client is gone, or the server stops: nobody waits for an answer."""


class Visit:
    """One request, from its event loop's side: a block there, inside which a thread may open a stream.

    If the block is broken off, for the client is gone, so is what the thread waits for.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._roster = get_roster()
        self._opening: Future[EventStream] | None = None
        self._stream: EventStream | None = None
        self.is_broken_off = False
        self.has_begun = False  #: whether its thread did: one that is broken off before never will

    def open(self, viewer: Viewer, client: str, granted: Grant, cursor: Cursor | None, *, garbage: bool) -> EventStream:
        """Open a stream as :meth:`~livefeed.roster.Roster.open` does, and wait for it in this thread.

        Raises what that raises, and :exc:`BrokenOff`.
        """
        if self.is_broken_off:
            raise BrokenOff
        opening = self._open(self._roster.open(viewer, client, granted, cursor, garbage=garbage))
        try:
            self._opening = self._begin(opening)
            if self.is_broken_off:
                self._opening.cancel()
            return self._opening.result()
        except CancelledError:
            raise BrokenOff from None

    async def _open(self, opening: Coroutine[Any, Any, EventStream]) -> EventStream:
        """Note a stream on the loop: between there and the thread it would be nobody's if the block is broken off."""
        self._stream = stream = await opening
        if self.is_broken_off:
            stream.drop()
        return stream

    def _begin(self, opening: Coroutine[Any, Any, EventStream]) -> Future[EventStream]:
        """Start a coroutine on the loop, in a context of its own: the request's has a thread, and that waits here."""
        try:
            return Context().run(asyncio.run_coroutine_threadsafe, opening, self._loop)
        except RuntimeError:  # the loop is closed
            opening.close()
            raise BrokenOff from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            return
        self.is_broken_off = True
        if self._opening is not None:
            self._opening.cancel()
        if self._stream is not None:
            self._stream.drop()  # nobody will ever read it
