"""How often somebody may come.

There is a bucket for each user, and for each address of those who are not signed in. A request takes from it, one of
many topics, a replay and a long snapshot take more, and it fills up again with time. All that in the memory of each
process, for nobody is to wait for it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from .conf import settings
from .exceptions import LimitReached
from .viewers import Viewer

#: How many times as much those may who are not signed in and share an address.
SHARED = 10
#: Buckets that are remembered; of more, the longest untouched are taken for full.
BUCKETS = 50_000
#: Events of a replay that count as much as one request.
REPLAY_EVENTS = 200
#: Topics of one request that count as much as one request of one: for each a rule is asked, and often a database.
REQUEST_TOPICS = 10
#: Items of a snapshot that one request is good for; so many more count as one more. A template is rendered for each, in
#: 0.1 ms or so.
SNAPSHOT_ITEMS = 50


class Level(NamedTuple):
    """What was in a bucket at a time, in requests and seconds."""

    left: float
    at: float


class Buckets:
    """Token buckets by name. Each holds what a minute brings."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._levels: OrderedDict[str, Level] = OrderedDict()

    def take(self, name: str, per_minute: float, cost: float = 1) -> bool:
        """Take from a bucket if there is enough in it; return whether there was."""
        return self._take(name, per_minute, cost, at_least=cost)

    def charge(self, name: str, per_minute: float, cost: float) -> None:
        """Take from a bucket also what is not in it: the debt has to be paid before anything else is given."""
        self._take(name, per_minute, cost, at_least=float("-inf"))

    def take_on_credit(self, name: str, per_minute: float, cost: float) -> bool:
        """Take from a bucket also what is not in it, unless there is a debt already; return whether it was taken."""
        return self._take(name, per_minute, cost, at_least=0)

    def _take(self, name: str, per_minute: float, cost: float, at_least: float) -> bool:
        with self._lock:
            now = self._clock()
            before = self._levels.pop(name, Level(per_minute, now))
            left = min(before.left + (now - before.at) * per_minute / 60, per_minute)
            enough = left >= at_least
            # Nobody owes more than a minute's worth: a large replay delays the next one, and locks nobody out.
            self._levels[name] = Level(max(left - cost, -per_minute) if enough else left, now)
            if len(self._levels) > BUCKETS:
                self._levels.popitem(last=False)
            return enough


_buckets = Buckets()


def take(viewer: Viewer, topics: int = 1) -> None:
    """Count one request, of so many topics. Raises :exc:`LimitReached` where it is one too many."""
    name, per_minute = _bucket(viewer)
    cost = min(max(topics / REQUEST_TOPICS, 1), per_minute)  # whoever has a full bucket may ask for anything
    if per_minute and not _buckets.take(name, per_minute, cost):
        raise LimitReached("rate", per_minute)


def take_of_nobody(address: str) -> None:
    """Count one request that showed credentials which don't hold. Raises :exc:`LimitReached` as :func:`take` does."""
    take(Viewer(None, None, address))


def take_items(viewer: Viewer, items: int) -> None:
    """Count the items of a snapshot, before they are read: of ten long ones that come at once the first is made.

    Raises :exc:`LimitReached` where somebody owes already.
    """
    name, per_minute = _bucket(viewer)
    cost = items / SNAPSHOT_ITEMS - 1
    if per_minute and cost > 0 and not _buckets.take_on_credit(name, per_minute, cost):
        raise LimitReached("rate", per_minute)


def charge(viewer: Viewer, events: int) -> None:
    """Count events that were read from the history for somebody who came back."""
    name, per_minute = _bucket(viewer)
    if per_minute and events:
        _buckets.charge(name, per_minute, events / REPLAY_EVENTS)


def forget() -> None:
    """Take every bucket for full: for tests."""
    global _buckets
    _buckets = Buckets()


def _bucket(viewer: Viewer) -> tuple[str, int]:
    """Return whose bucket it is, and how many requests a minute brings. Sessions don't count: a new one is free."""
    if viewer.is_user:
        return viewer.holder, settings.CONNECTS_PER_MINUTE
    return viewer.address_holder, settings.CONNECTS_PER_MINUTE * SHARED
