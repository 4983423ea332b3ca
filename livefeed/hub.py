"""One hub per event loop: it keeps a tail for every topic that somebody reads here.

Events reach it through the layer, fast, or through its own look at the history, surely. A gap in what came through the
layer is filled from the history before anything behind the gap is shown. Readers are woken by flushes: at once when
the loop is idle, and under load no sooner than the last flush kept the loop busy, so that many events become one write.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from . import broker
from .announcing import announce
from .chores import end, repeat
from .conf import settings
from .events import Event, Stretch
from .flushing import Flusher
from .history import EMPTY, PAGE_BYTES, Head, Page, get_history, position_of, unbroken
from .membership import Membership
from .pool import Pool
from .revocations import Revocation
from .tail import Subscription, Tail
from .trimming import trim
from .window import Budget, Fit, Frame

logger = logging.getLogger("livefeed.hub")

#: Events that are read from the history at a time.
PAGE_EVENTS = 200
#: Seconds that a tail is kept after its last reader left, and how many are kept for so long.
LINGER, LINGERING = 30.0, 1000
#: Seconds between two comparisons of all tails with the history, and between two trimmings of it.
SWEEP_EVERY = 60.0
TRIM_EVERY = 60.0


class Hub:
    """The reading half's centre on one event loop. All methods belong to that loop's thread.

    ``encode`` makes the frame that all readers share; where it returns None, tails keep the event itself.
    """

    def __init__(self, encode: Callable[[Event], bytes | None]) -> None:
        self.pool = Pool()
        self.tails: dict[str, Tail] = {}
        self._encode = encode
        #: Called with what other processes, or this one, say of rights that may have ended.
        self.on_revocations: Callable[[Sequence[Revocation]], None] = _ignore
        self._budget = Budget(settings.TAIL_BYTES)
        self._tasks: list[asyncio.Task[None]] = []
        self._opening: dict[str, asyncio.Task[dict[str, Tail]]] = {}
        self._repairs: dict[Tail, asyncio.Task[None]] = {}
        self._repair_again: set[Tail] = set()
        self._membership = Membership(lambda: {broker.REVOCATIONS: None, **self.tails}, self._take)
        self._pages: dict[tuple[str, int, int], asyncio.Task[tuple[Head, list[Frame]]]] = {}
        self._idle: dict[str, float] = {}  # those without readers longest first
        self._tidying: asyncio.Task[None] | None = None
        self._flusher = Flusher(asyncio.get_running_loop())
        self._marker: Any = None
        self._unnumbered: frozenset[int] = frozenset()

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to receive and to look, if that is not so already."""
        if not self._tasks:
            loop = asyncio.get_running_loop()
            broker.serve_from(loop)
            self._membership.join_soon(broker.REVOCATIONS)
            self._tasks = [loop.create_task(chore) for chore in self._chores()]

    async def stop(self) -> None:
        """Leave the layer, let go of threads and connections. Streams have to be closed before."""
        await end([*self._tasks, *self._membership.under_way(), *([self._tidying] if self._tidying else [])])
        self._tasks = []
        for topic in list(self.tails):
            await self._close_tail(topic)
        await self._membership.leave(broker.REVOCATIONS)
        self.pool.close()

    # -- readers --------------------------------------------------------------------------------------------------

    async def open(self, topics: Sequence[str]) -> list[Tail]:
        """Return the tails of these topics; those that are missing are made with one read of the history.

        Attach a subscription at once: a tail without a reader may be closed at the next await.
        """
        self.start()
        while missing := [topic for topic in topics if topic not in self.tails]:
            await self._open_missing(missing)
        now = asyncio.get_running_loop().time()
        self._idle.update({topic: now for topic in topics if topic in self._idle})  # they linger from now on
        return [self.tails[topic] for topic in topics]

    async def _open_missing(self, topics: Sequence[str]) -> None:
        mine = [topic for topic in topics if topic not in self._opening]
        if mine:
            task = asyncio.get_running_loop().create_task(self._open(mine))
            self._opening.update(dict.fromkeys(mine, task))
            task.add_done_callback(lambda _: [self._opening.pop(topic) for topic in mine])
            task.add_done_callback(_take_note)  # whoever asked may have given up at another topic's failure
        for task in dict.fromkeys(self._opening[topic] for topic in topics if topic in self._opening):
            await asyncio.shield(task)

    async def _open(self, topics: Sequence[str]) -> dict[str, Tail]:
        # First join, then read: what comes in between is seen by one or the other; while the layer is away, by looks.
        await self._membership.join(topics)
        if self._marker is None:  # a look compares what moved since then; so it has to be from before the heads
            _, self._marker = await self.pool.run(get_history().moved, None)
        heads = await self.pool.run(get_history().heads, topics)
        made = {topic: self._new_tail(topic, heads.get(topic, EMPTY)) for topic in topics}
        self.tails.update(made)
        self._idle.update(dict.fromkeys(made, asyncio.get_running_loop().time()))
        return made

    def _new_tail(self, topic: str, head: Head) -> Tail:
        tail = Tail(topic, position_of(head), self._budget)
        tail.floor = head.floor
        return tail

    def attach(self, subscription: Subscription) -> None:
        """Wake this reader from now on."""
        for tail in subscription.tails:
            tail.apart[subscription] = None
            self._idle.pop(tail.topic, None)

    def detach(self, subscription: Subscription) -> None:
        """Wake this reader no more; tails without readers are kept for a while."""
        subscription.step_out()
        for tail in subscription.tails:
            tail.apart.pop(subscription, None)
            if not tail.apart and not tail.cohort and self.tails.get(tail.topic) is tail:
                self._idle[tail.topic] = asyncio.get_running_loop().time()
        if len(self._idle) > LINGERING and (self._tidying is None or self._tidying.done()):
            self._tidying = asyncio.get_running_loop().create_task(self._tidy())

    async def page(self, topic: str, after: int, max_bytes: int = PAGE_BYTES) -> tuple[Head, list[Frame]]:
        """Return a part of a topic's history, encoded. Everyone who asks for the same part shares one read."""
        key = (topic, after, max_bytes)
        if key not in self._pages:
            self._pages[key] = asyncio.get_running_loop().create_task(self._read_page(*key))
            self._pages[key].add_done_callback(lambda _: self._pages.pop(key))
        return await asyncio.shield(self._pages[key])

    async def _read_page(self, topic: str, after: int, max_bytes: int) -> tuple[Head, list[Frame]]:
        page = await self.pool.run(get_history().read, topic, after, PAGE_EVENTS, max_bytes)
        frames = [self._frame(event) for event in unbroken(page.events)]
        if topic in self.tails:
            self.tails[topic].precede(page.head.epoch, frames)
        return page.head, frames

    # -- what the layer brings ------------------------------------------------------------------------------------

    def _take(self, message: Stretch | list[Revocation]) -> None:
        if isinstance(message, Stretch):
            self.receive(message)
        else:
            self.on_revocations(message)

    # -- events ---------------------------------------------------------------------------------------------------

    def receive(self, stretch: Stretch) -> None:
        """Take events that the layer brought: in any order, doubled, or with some of them missing."""
        tail = self.tails.get(stretch.topic)
        if tail is None:
            return
        if not stretch.epoch:
            self._pass_on(tail, stretch.events)
        elif self._extend(tail, stretch.epoch, stretch.events) is not Fit.KNOWN:
            self._spawn_repair(tail)

    def _pass_on(self, tail: Tail, fleeting: Sequence[Event]) -> None:
        frames = [frame for event in fleeting if (frame := self._encode(event)) is not None]
        if len(frames) == len(fleeting):
            self._flusher.flush_soon(tail, frames)
        else:
            self._flusher.offer_soon(tail, fleeting)

    def _extend(self, tail: Tail, epoch: str, events: Iterable[Event]) -> Fit:
        """Add events to a tail; return how the first one fits that could not be added, or else that all are known."""
        before = tail.head
        misfit = Fit.KNOWN
        for event in events:
            fit = tail.fit(epoch, event.seq or 0, event.id)
            if fit is Fit.NEXT:
                tail.add(epoch, self._frame(event))
            elif fit is not Fit.KNOWN:
                misfit = fit
                break
        if tail.head > before:
            self._flusher.flush_soon(tail)
        return misfit

    def _frame(self, event: Event) -> Frame:
        body = self._encode(event)
        kept = event if body is None else None
        return Frame(event.seq or 0, event.created_at.timestamp(), body or b"", event.id, kept)

    # -- repair ---------------------------------------------------------------------------------------------------

    async def repair(self, tail: Tail) -> None:
        """Bring a tail to where the history is now."""
        await asyncio.shield(self._spawn_repair(tail))

    def _spawn_repair(self, tail: Tail) -> asyncio.Task[None]:
        """Start a repair; one that is under way looks once more before it ends."""
        if tail in self._repairs:
            self._repair_again.add(tail)
        else:
            task = asyncio.get_running_loop().create_task(self._repair(tail))
            self._repairs[tail] = task
            task.add_done_callback(lambda _: self._repairs.pop(tail))
            task.add_done_callback(_log_failure)
        return self._repairs[tail]

    async def _repair(self, tail: Tail) -> None:
        more = True
        while more:
            self._repair_again.discard(tail)
            # One that is known already is read too: it shows whether the history is still the one it was.
            epoch, asked = tail.epoch, tail.head
            size = PAGE_BYTES + settings.MAX_EVENT_BYTES
            page = await self.pool.run(get_history().read, tail.topic, max(asked - 1, 0), PAGE_EVENTS, size)
            if tail.epoch == epoch and self.tails.get(tail.topic) is tail:
                await self._apply(tail, asked, page)
            more = (page.cut and tail.head > asked) or tail in self._repair_again

    async def _apply(self, tail: Tail, asked: int, page: Page) -> None:
        """Bring a tail to a page that was read when it ended at ``asked``; begin anew where it can't be continued."""
        head = page.head
        tail.floor = head.floor
        if tail.epoch in {"", head.epoch} and not head.seq < asked and head.floor <= asked:
            misfit = self._extend(tail, head.epoch, page.events)
            if misfit is Fit.KNOWN and (tail.head >= head.seq or page.cut):
                return
            if misfit is not Fit.CLASH:
                logger.error("The history of %s has a hole after %s; its readers are told.", tail.topic, asked)
                self._restart(tail, head)
                return
        if tail.epoch == head.epoch and head.floor <= asked:
            # Numbers were given out again, or will be: a restored backup.
            logger.warning("The history of %s is not the one it was; its epoch is renewed.", tail.topic)
            head = await self.pool.run(_renewed, tail.topic, tail.epoch)
        self._restart(tail, head)

    def _restart(self, tail: Tail, head: Head) -> None:
        tail.restart(position_of(head))
        self._flusher.flush_soon(tail)

    # -- the look -------------------------------------------------------------------------------------------------

    def _chores(self) -> list[Coroutine[Any, Any, None]]:
        return [
            self._membership.receive(),
            repeat("The look at the history", settings.LOOK_INTERVAL, self._look),
            repeat("The sweep over all topics", SWEEP_EVERY, self._sweep),
            repeat("Trimming the history", TRIM_EVERY, self._trim),
            repeat("Joining the layer again", self._membership.expiry / 3, self._membership.renew),
            repeat("Closing idle topics", LINGER / 3, self._tidy),
        ]

    async def _look(self) -> None:
        """Ask the history what moved, and number what nobody numbered; not where nobody reads."""
        if not self.tails:
            self._marker = None  # tails begin with the end of their topic, and need not hear of what was before
            return
        self._membership.join_again_soon()
        history = get_history()
        moved, self._marker = await self.pool.run(history.moved, self._marker)
        self._compare(moved)
        self._unnumbered = await self.pool.run(_number_leftovers, self._unnumbered)

    async def _sweep(self) -> None:
        """Compare every tail with the history: whatever a look could miss, this finds, and topics that are gone too."""
        if self.tails:
            topics = list(self.tails)
            heads = await self.pool.run(get_history().heads, topics)
            self._compare({topic: heads.get(topic, EMPTY) for topic in topics})

    async def _trim(self) -> None:
        if self.tails:
            await self.pool.run(trim)

    def _compare(self, heads: dict[str, Head]) -> None:
        for topic, head in heads.items():
            tail = self.tails.get(topic)
            if tail is None:
                continue
            tail.floor = head.floor
            if (head.epoch, head.seq) != (tail.epoch, tail.head):
                self._spawn_repair(tail)
                self._membership.join_soon(topic)  # the layer did not bring it: perhaps it forgot us

    async def _tidy(self) -> None:
        """Close the tails that nobody came back to: anybody can make many of them, by names that are open to all."""
        for topic in list(self._idle):
            if self._lingered(topic):
                await self._close_tail(topic)

    def _lingered(self, topic: str) -> bool:
        since = self._idle.get(topic)
        if since is None:
            return False  # somebody came while another tail was closed
        return len(self._idle) > LINGERING or asyncio.get_running_loop().time() - since > LINGER

    async def _close_tail(self, topic: str) -> None:
        tail = self.tails.pop(topic)
        self._idle.pop(topic, None)
        tail.restart(position_of(EMPTY))
        await self._membership.leave(topic)
        if topic in self.tails or topic in self._opening:
            self._membership.doubt(topic)  # somebody came meanwhile, and leaving may have overtaken joining


def _ignore(revocations: Sequence[Revocation]) -> None:
    pass


def _renewed(topic: str, epoch: str) -> Head:
    """Draw a new epoch for a topic, unless another process has done so meanwhile; return where the topic ends then."""
    history = get_history()
    head = history.heads([topic]).get(topic, EMPTY)
    if head.epoch == epoch:
        history.renew_epoch([topic])
        head = history.heads([topic]).get(topic, EMPTY)
    return head


def _number_leftovers(seen: frozenset[int]) -> frozenset[int]:
    """Number and announce what nobody numbered, in a thread: receivers of ``event_published`` may ask the database."""
    stretches, unnumbered = get_history().leftovers(seen)
    announce(stretches)
    return unnumbered


def _take_note(task: asyncio.Task[Any]) -> None:
    """Look at a task's failure, so that asyncio does not complain that nobody did."""
    if not task.cancelled():
        task.exception()


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()):
        logger.error("A repair failed; the next look repeats it.", exc_info=error)
