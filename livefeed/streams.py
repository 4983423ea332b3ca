"""EventStream: the body of a response. First the opening block, then what was missed, then what happens; and comments
where nothing does.

It is an object and not a generator: Django closes it when the client goes or a write fails, where a generator's
``finally`` would wait for the garbage collector. It never raises: an exception after the first byte would break a
whole Daphne process. On its first step it gives back the request's thread and database connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from asgiref.sync import SyncToAsync, sync_to_async
from django.db import connections

from . import rates, sse
from .conf import settings
from .cursors import Cursor, entry, join
from .history import Head, position_of
from .hub import Hub
from .outlets import Outlet, Rest, write_to
from .resuming import GARBAGE, NOWHERE, best, lost, missed, too_far
from .tail import Subscription, Tail
from .viewers import Viewer
from .window import CHUNK_BYTES, Frame

logger = logging.getLogger("livefeed.streams")

#: Milliseconds after which a client is told to come back: native ones add no randomness of their own.
RETRY = (2_000, 5_000)

#: Bytes of one topic's history that are read at least, however many topics a client catches up with at once.
LEAST_BYTES = 8 * 1024

S = TypeVar("S", bound=Subscription)


def own_block(type: str, data: dict[str, Any], cursor: str = "") -> bytes:
    """Return a block of livefeed's own: ``livefeed-<type>``."""
    frame = sse.frame(f"livefeed-{type}", json.dumps(data, separators=(",", ":")))
    return sse.with_id(cursor, frame) if cursor else frame


class EventStream:
    """One connection's stream, from its opening to its goodbye. All of it runs on one event loop."""

    __slots__ = (
        *("_ended", "_failure", "_goodbye", "_hub", "_keep_alive_due", "_loop", "_on_end", "_opening", "_outlet"),
        *("_rest", "_subscription", "lease", "names", "viewer", "__weakref__"),
    )

    def __init__(
        self,
        hub: Hub,
        subscription: Subscription,
        opening: bytes,
        *,
        viewer: Viewer,
        names: dict[str, str],
        lease: str,
        on_end: Callable[[EventStream], None],
    ) -> None:
        self.viewer = viewer
        self.names = names
        self.lease = lease
        self._hub = hub
        self._subscription = subscription
        self._opening = opening
        self._goodbye = b""
        self._outlet: Outlet | None = None
        self._rest: Rest | None = None
        self._failure: Exception | None = None
        self._ended = False
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._note_writing()
        hub.attach(subscription)

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> bytes:
        chunk = b""
        if not self._ended:
            try:
                chunk = await self._next()
            except Exception:
                logger.exception("A stream of %s failed; its client will come back.", ", ".join(self.names))
        if not chunk:
            self._end()
            raise StopAsyncIteration
        self._note_writing()
        return chunk

    async def _next(self) -> bytes:
        if self._opening:
            opening, self._opening = self._opening, b""
            await release_request()
            return opening
        while not self._goodbye:
            if self._failure is not None:
                raise self._failure
            if self._rest is not None:
                await self._finish_writing(self._rest)
            if chunk := self._subscription.take() or self._take_fleeting():
                return chunk
            if self._subscription.behind():
                chunk = await self._catch_up()
                if self._goodbye:
                    break  # what was read may be what its viewer may read no more
                if chunk:
                    return chunk
                if not self._subscription.behind():
                    continue  # events may have come while the history was read
            if self._keep_alive_due:
                return sse.KEEP_ALIVE
            self._step_in()
            await self._subscription.wait()
        self._ended = True
        return self._goodbye

    @property
    def written_at(self) -> float:
        """When something was last written, by the loop's clock."""
        return self._subscription.last_written

    def _note_writing(self) -> None:
        self._subscription.written_at = self._loop.time()
        self._keep_alive_due = False

    # -- the short way --------------------------------------------------------------------------------------------

    def use(self, outlet: Outlet) -> None:
        """Write to this outlet from now on whenever all that is to be said is at hand and the client takes it."""
        self._outlet = outlet
        self._subscription.writer = self

    def write_through(self) -> bool:
        """Write what there is, while the stream waits; return False where its task has to see to it.

        An error is the task's: in a flush it would be the end of all the others that are written to.
        """
        try:
            done = self._write_through()
        except Exception as error:
            self._failure = error
            return False
        if done:
            self._step_in()
        return done

    def _write_through(self) -> bool:
        if self._goodbye or self._rest is not None or self._failure is not None or self._outlet is None:
            return False
        subscription = self._subscription
        chunk = subscription.take()
        if subscription.fleeting:
            chunk += self._take_fleeting()
        if not chunk:
            if not self._keep_alive_due or subscription.behind():
                return False
            chunk = sse.KEEP_ALIVE
        self._note_writing()
        self._rest = write_to(self._outlet, chunk)
        return self._rest is None and subscription.is_current()

    def _step_in(self) -> None:
        """Be written to together with the others, as long as they all wait for the same."""
        if self._outlet is not None:
            self._subscription.step_in(self._outlet.write)

    def go_on(self, rest: Rest) -> None:
        """Wait for the rest of what was written together with the others."""
        if self._outlet is not None:
            self._rest = self._outlet.wait_for(rest)
        self._subscription.wake()

    def cut(self) -> None:
        """Cut the connection; its end is what ends the stream."""
        if self._outlet is not None:
            self._outlet.fail()

    def fail(self, error: Exception) -> None:
        """End with an error, in the stream's own task."""
        self._failure = error
        self._subscription.wake()

    async def _finish_writing(self, rest: Rest) -> None:
        self._rest = None
        await rest

    # -- what is read -----------------------------------------------------------------------------------------------

    def _take_fleeting(self) -> bytes:
        fleeting, self._subscription.fleeting = self._subscription.fleeting, b""
        return fleeting

    async def _catch_up(self) -> bytes:
        """Return a page of what the tails do not hold any more."""
        resets, found = await self._missed()
        return resets + self._subscription.deliver(found, limit=None)

    async def _missed(self) -> tuple[bytes, dict[int, tuple[str, Iterable[Frame]]]]:
        """Read a page of what the tails do not hold any more from the history; where it can't be had, say so.

        Returns the resets, and what was found: epoch and frames, by the topic's index.
        """
        resets: list[bytes] = []
        found: dict[int, tuple[str, Iterable[Frame]]] = {}
        behind = self._subscription.behind()
        share = max(CHUNK_BYTES // max(len(behind), 1), LEAST_BYTES)  # a client that does not read holds one chunk
        for index in behind:
            tail, position = self._subscription.tails[index], self._subscription.positions[index]
            if position.epoch != tail.epoch:
                await self._hub.repair(tail)
            head, frames = await self._hub.page(tail.topic, position.seq, share)
            rates.charge(self.viewer, len(frames))
            first = frames[0].seq if frames else None
            if reason := missed(position, head, first) or too_far(position, head, settings.MAX_REPLAY):
                resets.append(reset_block(self._subscription, index, head, reason))
            elif frames:
                found[index] = (head.epoch, frames)
        return b"".join(resets), found

    def keep_alive(self) -> None:
        """Let a comment be written, unless something else is; end a stream that nobody ever began to read."""
        if self._opening:
            self._end()  # the client left while a middleware worked on the response, and Django dropped it
        self._keep_alive_due = True
        self._subscription.wake()

    def say_goodbye(self, reason: str) -> None:
        """End the stream with ``livefeed-closing``; the client comes back after the time it was told to wait."""
        self._goodbye = self._goodbye or own_block("closing", {"reason": reason})
        self._subscription.wake()

    async def aclose(self) -> None:
        """End the stream. Django calls this when the client goes or a write fails."""
        self._end()

    def drop(self) -> None:
        """End a stream that nobody will ever begin to read."""
        self._end()

    def close(self) -> None:
        """End the stream from another thread; Django's ``response.close()`` runs in one."""
        if not self._ended:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and everything with it
                self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._ended = True
        self._outlet = self._subscription.writer = None
        if self._rest is not None:
            self._rest.close()
        on_end, self._on_end = self._on_end, _nothing
        if on_end is not _nothing:
            self._hub.detach(self._subscription)
            on_end(self)


def _nothing(stream: EventStream) -> None:
    pass


async def place(
    hub: Hub,
    topics: Sequence[str],
    cursor: Cursor | None,
    *,
    garbage: bool,
    kind: type[S] = Subscription,  # type: ignore[assignment]
) -> tuple[S, dict[int, str]]:
    """Return a subscription at the cursor's positions, and why the cursor can't be followed, by the topic's index.

    Without a cursor, or where it says nothing of a topic, reading begins with what comes next.
    """
    tails = await hub.open(topics)
    subscription = kind(tails, [position_of(_end_of(tail)) for tail in tails])
    hub.attach(subscription)  # at once, so that none of its tails is closed
    try:
        reasons = [
            await _place_on(hub, subscription, index, cursor, garbage=garbage)
            for index in range(len(subscription.tails))
        ]
    except BaseException:
        hub.detach(subscription)
        raise
    return subscription, {index: reason for index, reason in enumerate(reasons) if reason}


async def _place_on(hub: Hub, subscription: Subscription, index: int, cursor: Cursor | None, *, garbage: bool) -> str:
    """Set the position on one topic to what the client claims; return why that can't be followed, or ""."""
    tail = subscription.tails[index]
    if garbage:
        subscription.move(index, NOWHERE)
        return GARBAGE
    claims = cursor.positions(tail.topic) if cursor else []
    if claims and lost(best(claims, _end_of(tail)), _end_of(tail)):
        await hub.repair(tail)  # perhaps only this process has not heard of it yet
    end = _end_of(tail)
    claim = best(claims, end) if claims else position_of(end)
    subscription.move(index, claim)
    return lost(claim, end) or too_far(claim, end, settings.MAX_REPLAY)


def _end_of(tail: Tail) -> Head:
    return Head(tail.epoch, tail.head, tail.floor)


def opening_blocks(
    subscription: Subscription, reasons: dict[int, str], refused: Sequence[str], *, resumed: bool | None, viewer: str
) -> bytes:
    """Return what a stream begins with: how long to wait before coming back, the cursor and what lies behind it up to
    now, what was granted and to whom; then the resets, by the topic's index.

    Each block's id says what the client was told up to there, and no more: a connection that is cut between the blocks
    is resumed from the old position, and gets the reset that it missed.
    """
    data = {
        "topics": [tail.topic for tail in subscription.tails],
        "refused": list(refused),
        "cursor": subscription.cursor,
        "head": join(entry(tail.topic, position_of(_end_of(tail))) for tail in subscription.tails),
        "resumed": resumed,
        "keepalive": settings.KEEPALIVE,
        "viewer": viewer,
    }
    blocks = [sse.retry(random.randint(*RETRY)), own_block("open", data, subscription.cursor)]
    for index, reason in reasons.items():
        blocks.append(reset_block(subscription, index, _end_of(subscription.tails[index]), reason))
    return b"".join(blocks)


def reset_block(subscription: Subscription, index: int, head: Head, reason: str) -> bytes:
    """Go on from a topic's end, and return the block that says so: continuity can't be proven, and why."""
    subscription.move(index, position_of(head))
    data = {"topic": subscription.tails[index].topic, "reason": reason, "cursor": subscription.cursor}
    return own_block("reset", data, subscription.cursor)


async def release_request() -> None:
    """Give back what Django holds for a request until its response ends: a thread, and its database connections.

    Later middleware has run by now; should anything need the thread again, asgiref makes a new one.
    """
    context = SyncToAsync.thread_sensitive_context.get(None)
    executor = SyncToAsync.context_to_thread_executor.get(context) if context is not None else None
    if context is not None and executor is not None:
        await sync_to_async(connections.close_all)()
        SyncToAsync.context_to_thread_executor.pop(context, None)
        executor.shutdown(wait=False)
