"""The relay: the thread of a process that numbers and announces what its transactions committed.

A numbering is a transaction of its own, which takes as long as a small one of the site's. So a writer only names its
topics, and goes on. One thread, with a database connection of its own, numbers what many commits left in one go: at
once where nothing was to be done, and then no sooner than ``LIVEFEED_RELAY_PAUSE`` after the last time. Both end when
nothing comes for a while.

Nothing depends on it: what the relay of a process that dies leaves behind, or could not do, is numbered by the next
publisher or by a hub's look. Where it does not run, a writer numbers by itself: on SQLite, where one connection at a
time may write; in tests, which look at what they did at once; and where no thread can be started.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable, Collection

from django.core import mail
from django.db import InterfaceError, OperationalError, connections

from .announcing import announce
from .conf import settings
from .events import Stretch
from .history import get_history

logger = logging.getLogger("livefeed.publishing")

#: Seconds without anything to do after which the thread ends and gives its database connection back.
IDLE = 10.0
#: Topics that wait at most. Each is a statement or a few for the one thread: where writers name more of them than it
#: numbers, or one transaction does, they number their own, which holds them up, and nobody else waits for long.
MOST = 100
#: Seconds that a process which ends gives the last numbering.
LAST_WORDS = 2.0


class Relay:
    """The topics of one process that have something to be numbered, and the thread that does it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._topics: set[str] = set()
        self._thread: threading.Thread | None = None
        self._waits = False
        self._hurry = False

    # -- the writers' side ------------------------------------------------------------------------------------------

    def take(self, topics: Collection[str]) -> bool:
        """Have these topics numbered soon; return whether there is room, and a thread for that. In any thread."""
        with self._changed:
            if len(self._topics) + len(topics) > MOST or (self._thread is None and not self._start()):
                return False
            self._topics.update(topics)
            if self._waits:
                self._changed.notify_all()
            return True

    def _start(self) -> bool:
        self._thread = threading.Thread(target=self._run, name="livefeed-relay", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # there is no room for one, or the interpreter ends
            self._thread = None
        return self._thread is not None

    def flush(self, timeout: float) -> None:
        """Let the thread do what is to be done, and end; wait for that at most ``timeout`` seconds."""
        with self._changed:
            thread = self._thread
            self._hurry = True
            self._changed.notify_all()
        if thread is not None:
            thread.join(timeout)
        self._hurry = False

    # -- the thread's side ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while topics := self._next():
                _number_or_reconnect(topics)
                _give_back_what_is_shared()
                self._rest()
            connections.close_all()
        finally:
            self._is_over(threading.current_thread())

    def _is_over(self, thread: threading.Thread) -> None:
        """Have the next commit begin another thread, whatever ended this one."""
        with self._changed:
            if self._thread is thread:
                self._thread = None

    def _next(self) -> set[str]:
        """Wait for something to do and return it; nothing when the thread has to end."""
        with self._changed:
            if not self._topics and not self._hurry:
                self._waits = True
                self._changed.wait(IDLE)
                self._waits = False
            topics, self._topics = self._topics, set()
            if not topics:
                self._thread = None
            return topics

    def _rest(self) -> None:
        """Let what the next commits leave come together."""
        with self._changed:
            if not self._hurry:
                self._changed.wait(settings.RELAY_PAUSE)


def _give_back_what_is_shared() -> None:
    """Leave a connection that comes from a pool to the other threads: they may wait for it, if that is small."""
    for connection in connections.all(initialized_only=True):
        if connection.settings_dict["OPTIONS"].get("pool"):
            connection.close()


def number(topics: Collection[str]) -> None:
    """Number what is committed on these topics, and announce it. Never raises: a hub does at its look what fails."""
    _number(lambda: get_history().number(topics))


def _number_or_reconnect(topics: Collection[str]) -> None:
    """:func:`number` on the relay's connection, which was idle: the database may have been restarted meanwhile."""

    def work() -> list[Stretch]:
        try:
            return get_history().number(topics)
        except (InterfaceError, OperationalError):
            connections.close_all()
            return get_history().number(topics)

    _number(work)


def _number(work: Callable[[], list[Stretch]]) -> None:
    try:
        announce(work())
    except Exception:
        logger.exception("Numbering after a commit failed; a hub does it at its next look.")


def serves() -> bool:
    """Tell whether what is committed is numbered by the relay, and not by who committed it."""
    in_tests = hasattr(mail, "outbox")  # what Django's setup_test_environment() makes
    return settings.RELAY_PAUSE > 0 and not in_tests and get_history().numbers_elsewhere


def number_soon(topics: Collection[str]) -> None:
    """Have numbered and announced what is committed on these topics, by the relay where there is one. Never raises."""
    if not (serves() and _relay.take(topics)):
        number(topics)


def flush(timeout: float = LAST_WORDS) -> None:
    """Wait until what this process committed is numbered and announced, at most ``timeout`` seconds."""
    _relay.flush(timeout)


_relay = Relay()


def _start_anew() -> None:
    """Leave to the parent of a fork what is to be done there: its thread did not come along."""
    global _relay
    _relay = Relay()


os.register_at_fork(after_in_child=_start_anew)
atexit.register(flush)
