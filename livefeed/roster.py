"""The streams that are open on this event loop, and what is done for all of them together: one timer, not one each.

Keep-alives, leases (taken at the door, prolonged by one statement per process, given back in batches), the re-check
of rights, and the goodbye when the process is told to stop.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from .access import Grant, rechecked
from .chores import end, repeat
from .conf import settings
from .cursors import Cursor
from .exceptions import LimitReached
from .hub import Hub
from .leases import Claim, LeaseRequest, get_leases
from .personal import Asker, encode, is_personal
from .personal_streams import PersonalStream, PersonalSubscription
from .revocations import Revocation
from .streams import EventStream, opening_blocks, place
from .tail import Subscription
from .topics import topic_holder
from .viewers import Viewer

logger = logging.getLogger("livefeed.streams")

#: Seconds between two batches of leases that are given back.
RELEASE_EVERY = 0.25
#: Leases that are acquired in one go.
TOGETHER = 100
#: Seconds that a revocation is remembered, for those who were let in just before it and are at the door.
DOORWAY = 5.0
#: Revocations that are remembered at most; beyond that, everybody who comes in is looked at again.
REMEMBERED = 100
#: Seconds between two removals of leases that nobody gave back.
SWEEP_EVERY = 3600.0


class Roster:
    """The open streams of one event loop, with the hub they read from."""

    def __init__(self) -> None:
        self.hub = Hub(encode)
        self._personal_stream = partial(PersonalStream, asker=Asker(self.hub.pool))
        self.draining = False
        self._process = uuid.uuid4().hex
        self._streams: dict[EventStream, None] = {}  # a set in the order of opening
        self._held: dict[str, dict[EventStream, None]] = {}  # the same by whose it is, and by session
        self._pages: dict[tuple[str, str], str] = {}  # the newest lease of each page: whose it is, and its client id
        self._page_of: dict[str, tuple[str, str]] = {}  # by the lease
        self._recent: deque[tuple[float, Revocation]] = deque(maxlen=REMEMBERED)
        self._doubtful: dict[EventStream, None] = {}
        self._rechecking: asyncio.Task[None] | None = None
        self.hub.on_revocations = self.revoke
        self._placing = 0  # let in, or at the door: their streams have not begun
        self._wanted: list[tuple[LeaseRequest, asyncio.Future[str]]] = []
        self._acquiring: asyncio.Task[None] | None = None
        self._given_back: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._empty = asyncio.Event()

    def __len__(self) -> int:
        return len(self._streams) + self._placing

    async def open(
        self, viewer: Viewer, client: str, granted: Grant, cursor: Cursor | None, *, garbage: bool
    ) -> EventStream:
        """Return a stream of the granted topics from a cursor on, which is taken care of from now on.

        Raises :exc:`LimitReached` where it would be one too many, and what the history raises where it is away.
        """
        async with self.admit(viewer, client, list(granted.names)) as lease:
            personal = any(map(is_personal, granted.names))
            kind = PersonalSubscription if personal else Subscription
            subscription, reasons = await place(self.hub, list(granted.names), cursor, garbage=garbage, kind=kind)
            resumed = None if cursor is None and not garbage else not reasons
            make: Any = self._personal_stream if personal else EventStream
            stream: EventStream = make(
                self.hub,
                subscription,
                opening_blocks(subscription, reasons, granted.refused, resumed=resumed, viewer=viewer.digest),
                viewer=viewer,
                names=granted.names,
                lease=lease,
                on_end=self.leave,
            )
            self.enter(stream)
        return stream

    @asynccontextmanager
    async def admit(self, viewer: Viewer, client: str, topics: list[str]) -> AsyncIterator[str]:
        """Let a client in: the token of its lease, which is given back if the block does not end well.

        Raises :exc:`LimitReached` where it would be one too many.
        """
        if self.draining:
            raise LimitReached("shutdown", 0)
        if settings.MAX_CONNECTIONS and len(self) >= settings.MAX_CONNECTIONS:
            raise LimitReached("capacity", settings.MAX_CONNECTIONS)
        self._start()
        self._placing += 1
        try:
            lease = await self._acquire(self._request(viewer, client, topics))
            if client:
                self._replace((viewer.holder, client), lease)
            try:
                yield lease
            except BaseException:  # the client left, or the history is away
                self._give_back(lease)
                raise
        finally:
            self._placing -= 1
            self._note_if_empty()

    def _replace(self, page: tuple[str, str], lease: str) -> None:
        """End what a page has open here: its lease is this one now. Until the next renewal it would be one stream more
        than is allowed, each time that the page connects."""
        before = self._pages.get(page)
        self._pages[page], self._page_of[lease] = lease, page
        for stream in list(self._held.get(page[0], ())):
            if stream.lease == before:
                stream.say_goodbye("taken-over")

    def _is_replaced(self, stream: EventStream) -> bool:
        page = self._page_of.get(stream.lease)
        return page is not None and self._pages.get(page) != stream.lease

    def _give_back(self, lease: str) -> None:
        self._given_back.append(lease)
        page = self._page_of.pop(lease, None)
        if page is not None and self._pages.get(page) == lease:
            del self._pages[page]

    def _request(self, viewer: Viewer, client: str, topics: list[str]) -> LeaseRequest:
        return LeaseRequest(
            claims=_claims(viewer, topics),
            client=client,
            process=self._process,
            session=viewer.session_digest,
            topics=tuple(topics),
        )

    async def _acquire(self, request: LeaseRequest) -> str:
        """Get a lease, in one go with all others that wait for one at the same time."""
        lease: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._wanted.append((request, lease))
        if self._acquiring is None or self._acquiring.done():
            self._acquiring = asyncio.get_running_loop().create_task(self._acquire_wanted())
        try:
            return await lease
        except asyncio.CancelledError:
            if not lease.cancelled() and not lease.exception():  # it came in the moment in which the client left
                self._given_back.append(lease.result())
            raise

    async def _acquire_wanted(self) -> None:
        while self._wanted:
            wanted, self._wanted = self._wanted[:TOGETHER], self._wanted[TOGETHER:]
            wanted = [(request, lease) for request, lease in wanted if not lease.done()]
            answers: list[str | Exception]
            try:
                answers = await self.hub.pool.run(get_leases().acquire_all, [request for request, _ in wanted])
                if len(answers) != len(wanted):
                    raise ValueError(f"acquire_all() gave {len(answers)} answers to {len(wanted)} requests.")
            except Exception as error:
                answers = [error] * len(wanted)
            for (_, lease), answer in zip(wanted, answers, strict=True):
                if isinstance(answer, Exception):
                    if not lease.done():
                        lease.set_exception(answer)
                elif lease.done():  # the client left, but the thread went on
                    self._given_back.append(answer)
                else:
                    lease.set_result(answer)

    def enter(self, stream: EventStream) -> None:
        """Take care of a stream from now on."""
        self._streams[stream] = None
        for name in _names(stream):
            self._held.setdefault(name, {})[stream] = None
        if any(_fits(revocation, stream) for revocation in self._just_told()):
            self._recheck_soon([stream])
            # And again: Django tells of a logout before it ends the session.
            asyncio.get_running_loop().call_later(DOORWAY, self._recheck_soon, [stream])
        if self._is_replaced(stream):
            stream.say_goodbye("taken-over")
        if self.draining:
            stream.say_goodbye("shutdown")

    def leave(self, stream: EventStream) -> None:
        """Let a stream go, and give its lease back with the others of this moment."""
        self._streams.pop(stream, None)
        for name in _names(stream):
            held = self._held.get(name, {})
            held.pop(stream, None)
            if not held:
                self._held.pop(name, None)
        self._give_back(stream.lease)
        self._note_if_empty()

    def _note_if_empty(self) -> None:
        if not len(self):
            self._empty.set()

    async def drain(self, grace: float) -> None:
        """Say goodbye to every stream, and wait until they have all ended, at most ``grace`` seconds."""
        self.draining = True
        self._empty.clear()
        for stream in list(self._streams):
            stream.say_goodbye("shutdown")
        self._note_if_empty()
        try:
            await asyncio.wait_for(self._empty.wait(), grace)
        except TimeoutError:
            logger.warning("%s streams did not end within %s s.", len(self), grace)
        with suppress(TimeoutError):  # a database or a layer that hangs does not keep a process from ending
            await asyncio.wait_for(self.close(), grace)

    async def close(self) -> None:
        """Give back every lease and stop all work in the background."""
        await end([*self._tasks, *([self._rechecking] if self._rechecking else [])])
        self._tasks = []
        await self._release()
        await self.hub.stop()

    # -- every so often -------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if not self._tasks:
            chores = [
                repeat("Keeping streams alive", min(1.0, settings.KEEPALIVE / 4), self._keep_alive),
                repeat("Giving leases back", RELEASE_EVERY, self._release),
                # Also how long a stream may live on whose lease was taken away while the layer was silent.
                repeat("Prolonging leases", min(settings.LEASE_SECONDS / 3, settings.RECHECK_INTERVAL), self._renew),
                repeat("The re-check of rights", settings.RECHECK_INTERVAL, self._recheck),
                repeat("Removing old leases", SWEEP_EVERY, self._sweep),
            ]
            self._tasks = [asyncio.get_running_loop().create_task(chore) for chore in chores]

    async def _keep_alive(self) -> None:
        silent_since = asyncio.get_running_loop().time() - settings.KEEPALIVE
        for stream in list(self._streams):
            if stream.written_at <= silent_since:
                stream.keep_alive()

    async def _release(self) -> None:
        if self._given_back:
            tokens, self._given_back = self._given_back, []
            try:
                await self.hub.pool.run(get_leases().release, tokens)
            except BaseException:
                self._given_back += tokens
                raise

    async def _renew(self) -> None:
        streams = list(self._streams)
        if streams:
            held = await self.hub.pool.run(get_leases().renew, self._process)
            for stream in streams:
                if stream.lease not in held:
                    stream.say_goodbye("taken-over")

    async def _sweep(self) -> None:
        if self._streams:
            await self.hub.pool.run(get_leases().sweep)

    # -- rights that may have ended -------------------------------------------------------------------------------

    async def _recheck(self) -> None:
        await self._look_again_at(list(self._streams))

    async def _look_again_at(self, streams: Sequence[EventStream]) -> None:
        """Close the streams whose viewers lost a right; the others go on with their viewers as they are now."""
        asked = [(stream.viewer, stream.names) for stream in streams]
        viewers = await self.hub.pool.run(rechecked, asked) if asked else []
        for stream, (before, _), viewer in zip(streams, asked, viewers, strict=True):
            if viewer is None:
                stream.say_goodbye("revoked")
            elif stream.viewer is before:  # else a quicker look, which began later, knows better
                stream.viewer = viewer

    def revoke(self, revocations: Sequence[Revocation]) -> None:
        """Close, or look again at, the streams that are meant; every other process does the same with its own."""
        now = asyncio.get_running_loop().time()
        for revocation in revocations:
            self._recent.append((now, revocation))
            meant = [stream for stream in self._possibly(revocation) if _fits(revocation, stream)]
            if not revocation.close:
                self._recheck_soon(meant)
            for stream in meant if revocation.close else ():
                stream.say_goodbye("revoked")

    def _possibly(self, revocation: Revocation) -> Iterable[EventStream]:
        """Return the streams among which those are that a revocation means: a few, where it says whose they are."""
        name = revocation.holder or revocation.session
        return list(self._held.get(name, ())) if name else list(self._streams)

    def _just_told(self) -> list[Revocation]:
        """Return what was revoked a moment ago: whoever comes in now may have been asked about before that."""
        since = asyncio.get_running_loop().time() - DOORWAY
        recent = [revocation for told, revocation in self._recent if told > since]
        return [Revocation()] if len(recent) == REMEMBERED else recent

    def _recheck_soon(self, streams: Iterable[EventStream]) -> None:
        """Look again at streams, those that come together in one go."""
        self._doubtful.update({stream: None for stream in streams if stream in self._streams})
        if self._doubtful and (self._rechecking is None or self._rechecking.done()):
            self._rechecking = asyncio.get_running_loop().create_task(self._recheck_doubtful())

    async def _recheck_doubtful(self) -> None:
        while self._doubtful:
            streams, self._doubtful = list(self._doubtful), {}
            try:
                await self._look_again_at(streams)
            except Exception:
                logger.exception("A look at the rights of %s streams failed; the next one is on its way.", len(streams))


def _claims(viewer: Viewer, topics: Sequence[str]) -> tuple[Claim, ...]:
    """Return the limits that a connection counts against; the first says whose it is.

    Anybody can get a new session, so who is not signed in always counts against their address as well.
    """
    user, session = settings.MAX_CONNECTIONS_PER_USER, settings.MAX_CONNECTIONS_PER_SESSION
    claims = [Claim(viewer.key, user)] if viewer.is_user else []
    if viewer.session_key and not (viewer.is_user and 0 < user <= session):  # the user's limit is reached before
        claims.append(Claim(f"session:{viewer.session_digest}", session))
    if not viewer.is_user:
        claims.append(Claim(viewer.address_holder, settings.MAX_CONNECTIONS_PER_ADDRESS))
    if most := settings.MAX_CONNECTIONS_PER_TOPIC:
        claims += [Claim(topic_holder(topic), most) for topic in topics]
    return tuple(claims)


def _names(stream: EventStream) -> set[str]:
    """Return under which names a stream is held: whose it is, and the session's digest."""
    return {stream.viewer.holder, stream.viewer.session_digest} - {""}


def _fits(revocation: Revocation, stream: EventStream) -> bool:
    """Tell whether a revocation means a stream."""
    return (
        revocation.holder in ("", stream.viewer.holder)
        and (not revocation.session or revocation.session == stream.viewer.session_digest)
        and (not revocation.topic or revocation.topic in stream.names)
        and (not revocation.leases or stream.lease in revocation.leases)
    )


_rosters: dict[asyncio.AbstractEventLoop, Roster] = {}


def get_roster() -> Roster:
    """Return the roster of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _rosters:
        for closed in [other for other in _rosters if other.is_closed()]:
            _rosters.pop(closed).hub.pool.close()
        _rosters[loop] = Roster()
    return _rosters[loop]


async def close_roster() -> None:
    """Close the roster of the running event loop and forget it, if it has one: for tests, whose loops go on or end."""
    roster = _rosters.pop(asyncio.get_running_loop(), None)
    if roster is not None:
        await roster.close()


def rosters() -> list[tuple[asyncio.AbstractEventLoop, Roster]]:
    """Return the rosters of this process, each with its event loop."""
    return list(_rosters.items())
