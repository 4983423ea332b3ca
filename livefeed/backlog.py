"""What waits for a history that is away: events of changes that are committed, in the process that made them.

The save has succeeded, so it neither fails nor waits: one attempt, and then a thread tries on, with growing pauses, in
the order of each topic; while a topic waits, its later events queue up behind. What it has to give up is lost, and then
the readers are told: as soon as the history answers again, those topics get a new epoch, so that each cursor handed out
before ends in a reset. All of it lives in the process and ends with it, but for a last attempt at its exit.

Only what is appended after a commit comes here: with a history outside of Django's databases, and from other databases
than the history's.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from django.db import connections

from .announcing import announce
from .events import Event, Stretch
from .history import get_history

logger = logging.getLogger("livefeed.publishing")

#: Events that wait at most, and bytes of their data, in one process. What comes on top is lost at once.
EVENTS = 10_000
BYTES = 32 * 1024 * 1024
#: Seconds that an event waits at most.
SECONDS = 60.0
#: Seconds between two attempts: the first and the longest pause.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
#: Seconds that a process which ends gives its last attempt.
LAST_WORDS = 2.0
#: Events of a topic that are tried in one go.
PORTION = 500


TOO_MUCH = "too much waits for the history. Its readers are told when that is back"
TOO_LONG = "the history was away for too long. Its readers are told when it is back"
THE_END = "the process ends, and the history is away. Its readers are not told"


class _Waiting(NamedTuple):
    event: Event
    since: float


class Backlog:
    """The events of one process that wait, by topic, and the thread that tries to append them while there are any."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._topics: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        self._events = 0
        self._bytes = 0
        self._lost: set[str] = set()
        self._lost_everywhere = False
        self._away = False
        self._hurry = False
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return self._events

    # -- the writers' side ------------------------------------------------------------------------------------------

    def append(self, events: Sequence[Event]) -> list[Stretch]:
        """Append events of committed changes, or let them wait. Returns what got numbers. Never raises.

        Where the history is known to be away, it is not asked again by the writer.
        """
        ready = self._in_turn(events)
        if not ready:
            return []
        try:
            return get_history().append(ready)
        except Exception as error:
            if not self._away:
                logger.warning("The history is away (%r); events wait for it.", error)
            with self._changed:
                self._away = True
                dropped = self._put(ready)
            _complain(dropped, TOO_MUCH)
            return []

    def _in_turn(self, events: Sequence[Event]) -> list[Event]:
        """Let those events wait that others wait before; return the rest."""
        ready: list[Event] = []
        waits: list[Event] = []
        with self._changed:
            for event in events:
                (waits if self._away or event.topic in self._topics else ready).append(event)
            dropped = self._put(waits)
        _complain(dropped, TOO_MUCH)
        return ready

    def _put(self, events: Iterable[Event]) -> Counter[str]:
        """Queue events; return how many of each topic there was no room for."""
        dropped: Counter[str] = Counter()
        for event in events:
            if self._events >= EVENTS or self._bytes + event.size > BYTES:
                dropped[event.topic] += 1
                continue
            self._topics.setdefault(event.topic, deque()).append(_Waiting(event, time.monotonic()))
            self._count(event, 1)
        self._lose(dropped)
        if self._has_work() and self._thread is None:
            self._start()
        return dropped

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="livefeed-backlog", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter ends, and lets nothing begin any more
            self._thread = None

    def _count(self, event: Event, sign: int) -> None:
        self._events += sign
        self._bytes += sign * event.size

    def _lose(self, topics: Iterable[str]) -> None:
        self._lost.update(topics)
        if len(self._lost) > EVENTS:
            self._lost, self._lost_everywhere = set(), True

    # -- the thread's side ------------------------------------------------------------------------------------------

    def _has_work(self) -> bool:
        return bool(self._topics or self._lost or self._lost_everywhere)

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._ends():
            if self._step():
                pause = FIRST_PAUSE
            else:
                self._rest(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    def _ends(self) -> bool:
        """Tell whether nothing waits any more; then nobody else counts on this thread either."""
        with self._changed:
            if not self._has_work():
                self._thread = None
                self._away = False
        if self._thread is None:
            connections.close_all()
        return self._thread is None

    def _rest(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait(FIRST_PAUSE if self._hurry else seconds)

    def _step(self) -> bool:
        """Give up what waited too long, and try the next thing; tell whether the history did it."""
        _complain(self._give_up(), TOO_LONG)
        topic, events = self._next()
        try:
            self._renew()
            stretches = get_history().append(events) if events else []
        except Exception as error:
            logger.debug("The history is still away: %r", error)
            self._move_back(topic)
            connections.close_all()  # one of them may be what failed
            return False
        self._done(topic, len(events))
        announce(stretches)
        return True

    def _give_up(self) -> Counter[str]:
        """Drop what waited too long; return how many events of each topic."""
        old = time.monotonic() - SECONDS
        dropped: Counter[str] = Counter()
        with self._changed:
            for topic, waiting in list(self._topics.items()):
                while waiting and waiting[0].since < old:
                    self._count(waiting.popleft().event, -1)
                    dropped[topic] += 1
                if not waiting:
                    del self._topics[topic]
            self._lose(dropped)
        return dropped

    def _next(self) -> tuple[str, list[Event]]:
        with self._changed:
            for topic, waiting in self._topics.items():
                return topic, [waiting[index].event for index in range(min(len(waiting), PORTION))]
        return "", []

    def _renew(self) -> None:
        """Let readers of topics that lost events be told; remember those topics where that fails."""
        with self._changed:
            lost, self._lost = self._lost, set()
            everywhere, self._lost_everywhere = self._lost_everywhere, False
        try:
            if everywhere:
                get_history().renew_epoch()
            if lost:
                get_history().renew_epoch(sorted(lost))
        except BaseException:
            with self._changed:
                self._lost_everywhere = self._lost_everywhere or everywhere
                self._lose(lost)
            raise

    def _move_back(self, topic: str) -> None:
        """Try another topic the next time: perhaps it is only this one that fails."""
        with self._changed:
            if topic in self._topics:
                self._topics.move_to_end(topic)

    def _done(self, topic: str, count: int) -> None:
        with self._changed:
            if self._away:
                logger.warning("The history is back.")
            self._away = False
            if not count:
                return
            waiting = self._topics[topic]
            for _ in range(count):
                self._count(waiting.popleft().event, -1)
            if not waiting:
                del self._topics[topic]

    # -- the end ----------------------------------------------------------------------------------------------------

    def flush(self, timeout: float) -> None:
        """Try at once, and wait for that at most ``timeout`` seconds; say what is left then."""
        with self._changed:
            thread = self._thread
            self._hurry = True
            self._changed.notify_all()
        if thread is not None:
            thread.join(timeout)
        with self._changed:
            left = Counter({topic: len(waiting) for topic, waiting in self._topics.items()})
        _complain(left, THE_END)
        self._hurry = False


def _complain(dropped: Counter[str], why: str) -> None:
    for topic, count in dropped.items():
        logger.error("%s events of %s are lost: %s.", count, topic, why)


_backlog = Backlog()


def append(events: Sequence[Event]) -> list[Stretch]:
    """Append events of committed changes to the history, now, or as soon as it is back; see :meth:`Backlog.append`."""
    return _backlog.append(events)


def waiting() -> int:
    """Return how many events of this process wait for the history."""
    return len(_backlog)


def _start_anew() -> None:
    """Leave to the parent of a fork what waits there: its thread did not come along, and nothing may come twice."""
    global _backlog
    _backlog = Backlog()


os.register_at_fork(after_in_child=_start_anew)
atexit.register(lambda: _backlog.flush(LAST_WORDS))
