"""What one viewer sees of an event, where a feed shows different things to different viewers (``get_data_for()``).

The hook may ask the database, so it never runs on the event loop: what many streams want to know in one turn of the
loop is one job in the hub's pool, where a viewer with five open pages is asked for once. A hook that fails shows
nothing. Nothing of what a viewer was shown is kept: who is asked again is asked anew, as the user is then.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import traceback
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from asgiref.sync import async_to_sync

from . import events, sse
from .events import Event
from .exceptions import InvalidData
from .feeds import LiveFeed
from .pool import Pool
from .registry import registry
from .transactions import says_that_a_database_is_away
from .viewers import Viewer

logger = logging.getLogger("livefeed.personal")

#: Jobs that ask hooks at a time: slow hooks leave half of the pool's threads to the history, leases and rights.
JOBS = 2
#: Seconds after which a job brings the answers it has, and leaves the rest to the next one.
PORTION_SECONDS = 0.05
#: Events whose failed hooks are remembered, so that each is told of once and not once for each viewer.
REMEMBERED = 1000


def is_personal(topic: str) -> bool:
    """Tell whether viewers of this topic may each see something else."""
    feed = registry.owner(topic)
    return feed is not None and feed.is_personal


def has_names(topic: str) -> bool:
    """Tell whether a topic's events carry their type, as the feed that owns it chooses."""
    feed = registry.owner(topic)
    return feed is None or feed.event_names


def encode(event: Event) -> bytes | None:
    """Return the frame that is the same for all viewers, or None where each is to be asked for."""
    feed = registry.owner(event.topic)
    return None if feed is not None and feed.is_personal else _frame(feed, event)


def _frame(feed: LiveFeed | None, event: Event) -> bytes:
    """Return an event's frame, with or without its name, as the feed that owns the topic chooses."""
    if feed is None or feed.event_names:
        return sse.frame(event.type, event.json)
    data = event.data
    return sse.frame("message", data if isinstance(data, str) else event.json)


# -- one viewer and one event -----------------------------------------------------------------------------------------


def seen(user: Any, event: Event) -> Event | None:
    """Return an event as this user sees it; None where there is nothing to see. Blocks: call it in a thread.

    Raises only what says that a database is away: then nobody knows, and the event has to be asked for again.
    """
    feed = registry.owner(event.topic)
    if feed is None or not feed.is_personal:
        return event
    try:
        data = feed.get_data_for(user, event)
        if inspect.isawaitable(data):
            data = async_to_sync(_awaited)(data)
        return None if data is None else replace(event, json=events.encode(data))
    except InvalidData:
        # Its message shows what the hook returned.
        _complain(feed, event, "returned what can't be written as JSON, or is larger than LIVEFEED_MAX_EVENT_BYTES")
    except (Exception, asyncio.CancelledError) as error:
        if says_that_a_database_is_away(error):
            raise
        where = "".join(traceback.format_tb(error.__traceback__))  # the error's own text may show the data
        _complain(feed, event, f"failed with {type(error).__name__}:\n{where}")
    return None


async def _awaited(answer: Any) -> Any:
    return await answer


_complained: deque[str] = deque(maxlen=REMEMBERED)
_complaining = threading.Lock()


def _complain(feed: LiveFeed, event: Event, what: str) -> None:
    with _complaining:
        if event.id in _complained:
            return
        _complained.append(event.id)
    logger.error(
        "An event (%s, %s) of %s is hidden: %s.get_data_for %s", event.type, event.seq, event.topic, _name(feed), what
    )


def _name(feed: LiveFeed) -> str:
    return type(feed).__name__


# -- many viewers and many events -------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class Question:
    """How a stream's viewer sees some events.

    ``answer`` becomes a list of frames, None for what is hidden: of the first events at least, of all where that takes
    neither too long nor more than ``limit`` bytes. ``number`` counts the streams in the order of their opening.
    """

    viewer: Viewer
    events: Sequence[Event]
    limit: int
    number: int
    answer: asyncio.Future[list[bytes | None]] = field(init=False)

    def __post_init__(self) -> None:
        self.answer = asyncio.get_running_loop().create_future()

    def drop(self) -> None:
        """Want no answer any more."""
        if not self.answer.cancel() and not self.answer.cancelled():
            self.answer.exception()  # looked at, so that asyncio does not complain that nobody did


class Asker:
    """Gathers the questions of one event loop's streams; all of a turn of the loop is one job."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: deque[Question] = deque()
        self._jobs: set[asyncio.Task[None]] = set()
        self._begins = False

    def ask(self, question: Question) -> None:
        """Let a question be answered soon: with all others that are asked meanwhile."""
        self._waiting.append(question)
        self._begin_soon()

    def _begin_soon(self) -> None:
        if self._waiting and not self._begins and len(self._jobs) < JOBS:
            self._begins = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._begins = False
        questions = [question for question in self._waiting if not question.answer.done()]
        self._waiting.clear()
        if questions:
            task = asyncio.get_running_loop().create_task(self._work(questions))
            self._jobs.add(task)
            task.add_done_callback(self._go_on)

    def _go_on(self, task: asyncio.Task[None]) -> None:
        self._jobs.discard(task)
        self._begin_soon()

    async def _work(self, questions: Sequence[Question]) -> None:
        try:
            answers = await self._pool.run(answer, questions, asyncio.get_running_loop().time)
        except Exception as error:
            for question in questions:
                if not question.answer.done():
                    question.answer.set_exception(error)
            return
        left = []
        for question, frames in zip(questions, answers, strict=True):
            if question.answer.done():
                continue  # its stream has ended
            if frames:
                question.answer.set_result(frames)
            else:
                left.append(question)
        self._waiting.extendleft(reversed(left))


def answer(questions: Sequence[Question], clock: Callable[[], float]) -> list[list[bytes | None]]:
    """Ask the hooks, in a thread: once for each viewer and event, and no more after a while. May be repeated.

    Two streams have one viewer where they have one credential: what a site knows of a user may hang on the session.
    """
    users = {question.viewer.credential: question.viewer.user for question in sorted(questions, key=_number)}
    known: dict[tuple[Hashable, str], bytes | None] = {}
    until = clock() + PORTION_SECONDS
    found = []
    for question in questions:
        frames: list[bytes | None] = []
        size = 0
        for event in question.events:
            key = (question.viewer.credential, event.id)
            if key not in known:
                if known and clock() > until:
                    break  # others may go on with what is known
                known[key] = _frame_for(users[key[0]], event)
            frames.append(known[key])
            size += len(frames[-1] or b"")
            if size > question.limit:
                break
        found.append(frames)
    return found


def _number(question: Question) -> int:
    """Who opened a stream last was read from the database last: of several who are one, that user is the freshest."""
    return question.number


def _frame_for(user: Any, event: Event) -> bytes | None:
    mine = seen(user, event)
    return None if mine is None else _frame(registry.owner(event.topic), mine)
