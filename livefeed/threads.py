"""Threads in which the reading half does what blocks. Each keeps its database connections as long as it lives."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import lru_cache, partial
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds that a thread waits for its next job before it ends, and its connections with it.
PATIENCE = 2.0
#: Seconds after which an unused connection is asked whether it is still there, before a job that can't be repeated.
FRESH = 1.0
#: Statements that end with their transaction. A SELECT without FROM is there for a function that it calls.
PASSING = re.compile(
    r"(?!.*\b(?:set_config|pg_(?:try_)?advisory_lock|get_lock)\b)(?!.*;\s*\S)"
    r"[\s(]*(?:SELECT\b.*\bFROM|SELECT\s+1|INSERT|UPDATE|DELETE|WITH|BEGIN|SAVEPOINT|RELEASE|ROLLBACK"
    r"|SET\s+(?:LOCAL|TRANSACTION))\b",
    re.IGNORECASE | re.DOTALL,
)


class Work:
    """One job, and who waits for it."""

    __slots__ = ("_job", "future")

    def __init__(self, job: Callable[[], Any]) -> None:
        self._job = job
        self.future: Future[Any] = Future()

    def do(self) -> Callable[[], None]:
        """Do the job, unless nobody waits for it any more; return what tells of it."""
        if not self.future.set_running_or_notify_cancel():
            return _nothing
        try:
            return partial(self.future.set_result, self._job())
        except BaseException as error:
            return partial(self.future.set_exception, error)


def _nothing() -> None:
    pass


class Threads(Executor):
    """An executor that makes a thread when it needs one, and lets it go when it does not.

    There are ``most`` at a time, or any number with 0. Of those that wait, the one that came last gets the next job, so
    that only as many live on as there is work for.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._count = 0
        self._closed = False
        self._waiting: deque[Work] = deque()
        self._idle: list[SimpleQueue[Work | None]] = []

    def submit(self, job: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a job done."""
        work = Work(partial(job, *args, **kwargs))
        with self._lock:
            if self._idle:
                self._idle.pop().put(work)
            elif not self._most or self._count < self._most:
                inbox: SimpleQueue[Work | None] = SimpleQueue()
                inbox.put(work)  # an argument would be kept, with what came of it, for as long as the thread lives
                threading.Thread(target=self._live, args=[inbox], name="livefeed_thread", daemon=True).start()
                self._count += 1
            else:
                self._waiting.append(work)
        return work.future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Let every thread end when its job is done."""
        with self._lock:
            self._closed = True
            self._count -= len(self._idle)
            while self._idle:
                self._idle.pop().put(None)

    def _live(self, inbox: SimpleQueue[Work | None]) -> None:
        work = inbox.get()
        while work is not None:
            tell = work.do()
            work = self._next(inbox)
            tell()  # whoever asks for one job after the other finds this thread idle
            del tell  # what it led to is not kept while the next one is waited for
            if work is None:
                work = self._wait(inbox)
        connections.close_all()

    def _next(self, inbox: SimpleQueue[Work | None]) -> Work | None:
        """Return the next job, or join those that wait for one."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            if self._closed:
                self._count -= 1
                inbox.put(None)
            else:
                self._idle.append(inbox)
            return None

    def _wait(self, inbox: SimpleQueue[Work | None]) -> Work | None:
        """Wait for the next job; None where this thread is counted no more, and ends."""
        try:
            return inbox.get(timeout=PATIENCE)
        except Empty:
            with self._lock:
                if inbox in self._idle:
                    self._idle.remove(inbox)
                    self._count -= 1
                    return None
            return inbox.get()  # it came in that very moment


def tidy() -> None:
    """Close this thread's connections that broke, so that the next job gets new ones, and those that are lent."""
    for connection in connections.all(initialized_only=True):
        if connection.errors_occurred or is_lent(connection):
            connection.close()


def is_lent(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether a connection is of a pool of Django's, where others wait for it."""
    options: dict[str, Any] = connection.settings_dict.get("OPTIONS") or {}
    return bool(options.get("pool"))


@contextmanager
def kept_connections() -> Iterator[Callable[[], None]]:
    """Let the block find this thread's connections as the block before left them, if they are still good.

    With CONN_MAX_AGE = 0 Django closes a connection when a request begins or ends; a thread that lives for seconds may
    keep it. A higher one holds here too. One whose session was changed (``SET app.user = …``, for row security) is not
    kept at 0: the next request may be somebody else's, on a site that counts on a connection of its own.

    What the block is given does that before its end: for a block in which a request ends by Django's own signals.
    """
    mine = connections.all()
    keep = partial(_keep_all, mine)
    if time.monotonic() - _last.job > FRESH:
        for connection in mine:
            if connection.connection is not None and not connection.is_usable():
                connection.close()
    for connection in mine:
        connection.execute_wrappers.append(_watch)
    try:
        yield keep
    finally:
        for connection in mine:
            connection.execute_wrappers.remove(_watch)
        keep()
        _last.job = time.monotonic()


def _keep_all(mine: Iterable[BaseDatabaseWrapper]) -> None:
    for connection in mine:
        if connection.connection is not None:
            _keep(connection)


def _keep(connection: BaseDatabaseWrapper) -> None:
    at_zero = connection.settings_dict["CONN_MAX_AGE"] == 0
    if is_lent(connection) or (at_zero and connection.alias in _last.changed):
        connection.close()
        return
    if at_zero:
        connection.close_at = None
    connection.close_if_unusable_or_obsolete()


def _watch(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """Note which connections are no longer as they were made."""
    if not (isinstance(sql, str) and _passes(sql)):
        _last.changed.add(context["connection"].alias)
    return execute(sql, params, many, context)


@lru_cache(maxsize=256)
def _passes(sql: str) -> bool:
    """Tell whether a statement leaves nothing behind on its connection. Requests say the same ones again and again."""
    return PASSING.match(sql) is not None


def _as_made(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Take what was said to a connection until now, by Django and the site's own receivers, for how it is made."""
    _last.changed.discard(connection.alias)


connection_created.connect(_as_made)


class _Last(threading.local):
    """What this thread remembers of its last job: when it ended, and the connections whose sessions were changed."""

    job = 0.0

    def __init__(self) -> None:
        self.changed: set[str] = set()


_last = _Last()
