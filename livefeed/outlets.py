"""The short way out: a flush hands its chunk to the server's ``send`` itself, and the response's task sleeps on.

To wake a task for each reader and event costs as much as the kernel's own work. While a stream waits for events nobody
else writes to its connection, so the flush may: it starts the ``send`` and, as nearly always, that comes to its end at
once. One that has to wait for its client is handed to the stream's task, which is woken and takes it from there, so
that flow control, time-outs and cancellation are what they always are.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterable, MutableMapping
from typing import Any, Protocol

Message = MutableMapping[str, Any]
#: Takes a message of ASGI for one connection, and comes back when the client can take more.
Write = Callable[[Message], Coroutine[Any, Any, None]]

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

    @property
    def write(self) -> Write:
        """What may be started outside of a task."""

    def wait_for(self, rest: Rest) -> Rest | None:
        """Watch a write that has to wait for its client; return what is left to wait for."""

    def fail(self) -> None:
        """Cut the connection, because of the exception that is handled."""


#: The message that ends a body.
END: Message = {"type": "http.response.body"}


def part(chunk: bytes) -> Message:
    """Return the message that brings a part of a body."""
    return {"type": "http.response.body", "body": chunk, "more_body": True}


def begin(coroutine: Coroutine[Any, Any, None]) -> Rest | None:
    """Run a coroutine up to where it has to wait; return its rest, or None where it came to its end."""
    try:
        waits_for = coroutine.send(None)
    except StopIteration:
        return None
    return Rest(coroutine, waits_for)


def write_to(outlet: Outlet, chunk: bytes) -> Rest | None:
    """Write a chunk; return what is left to wait for, or None where all is done."""
    try:
        rest = begin(outlet.write(part(chunk)))
    except Exception:
        outlet.fail()
        return None
    return None if rest is None else outlet.wait_for(rest)


def write_to_each(
    writes: Iterable[tuple[Write, Message]], on_wait: Callable[[Write, Rest], None], on_error: Callable[[Write], None]
) -> None:
    """Write to one after the other; tell of each write that has to wait for its client, and of each that failed."""
    left = iter(writes)
    while True:
        round = _Round(left, on_error)
        if (rest := begin(round.run())) is None:
            return
        round.is_parted = True
        on_wait(round.at, rest)


class _Round:
    """Writes within one coroutine, up to the first that has to wait: to start one for each takes longer.

    It is then that write's alone, and ends with it; the others get another round.
    """

    __slots__ = ("_on_error", "_writes", "at", "is_parted")

    at: Write

    def __init__(self, writes: Iterable[tuple[Write, Message]], on_error: Callable[[Write], None]) -> None:
        self._writes = writes
        self._on_error = on_error
        self.is_parted = False

    async def run(self) -> None:
        for write, message in self._writes:
            self.at = write
            try:
                await write(message)
            except Exception:
                if self.is_parted:
                    raise
                self._on_error(write)
            if self.is_parted:
                return
