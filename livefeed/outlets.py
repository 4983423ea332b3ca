"""The short way out: a flush hands its chunk to the server's ``send`` itself, and the response's task sleeps on.

To wake a task for each reader and event costs as much as the kernel's own work. While a stream waits for events nobody
else writes to its connection, so the flush may: it starts the ``send`` and, as nearly always, that comes to its end at
once. One that has to wait for its client is handed to the stream's task, which is woken and takes it from there, so
that flow control, time-outs and cancellation are what they always are.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, Protocol

#: Under this an ASGI scope has the outlet of its connection, where there is one.
OUTLET = "livefeed.outlet"


class Rest:
    """What is left of a coroutine that was started outside of any task; to be awaited in one, or closed."""

    __slots__ = ("_coroutine", "_waits_for")

    def __init__(self, coroutine: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        # PEP 380's expansion of "yield from", but for its first step, which is done.
        waits_for = self._waits_for
        try:
            while True:
                try:
                    sent = yield waits_for
                except GeneratorExit:
                    self.close()
                    raise
                except BaseException as error:
                    waits_for = self._coroutine.throw(error)
                else:
                    waits_for = self._coroutine.send(sent)
        except StopIteration:
            return

    def close(self) -> None:
        """Give it up: nobody will wait for it."""
        self._coroutine.close()


class Outlet(Protocol):
    """The server's end of one connection."""

    def write_through(self, chunk: bytes) -> Rest | None:
        """Write a chunk; return what is left to wait for, or None where all is done."""


def begin(coroutine: Coroutine[Any, Any, None]) -> Rest | None:
    """Run a coroutine up to where it has to wait; return its rest, or None where it came to its end."""
    try:
        waits_for = coroutine.send(None)
    except StopIteration:
        return None
    return Rest(coroutine, waits_for)
