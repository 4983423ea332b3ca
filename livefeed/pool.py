"""The few threads in which the reading half does what blocks: history, leases, rules. Streams themselves hold none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from django.db import InterfaceError, OperationalError, connections

from .threads import Threads, tidy

P = ParamSpec("P")
T = TypeVar("T")

#: Threads, and so database connections, that one event loop's streams use together.
THREADS = 4


class Pool:
    """A bounded pool of threads, each with its own database connections, which outlive a job unless they broke."""

    def __init__(self) -> None:
        self._threads: Threads | None = None

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking job in a thread; raise what it raises.

        It is run once more if a database connection of earlier jobs turns out to be broken: each job has to be one
        that may be repeated.
        """
        if self._threads is None:
            self._threads = Threads(THREADS)
        return await asyncio.get_running_loop().run_in_executor(self._threads, _work, partial(job, *args, **kwargs))

    def close(self) -> None:
        """Let go of threads and connections, when the jobs under way have ended. A later :meth:`run` makes new ones."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown()


def _work(job: Callable[[], T]) -> T:
    """Do a job in this thread. After a restart of the database each thread finds its old connection broken."""
    old = [connection for connection in connections.all(initialized_only=True) if connection.connection is not None]
    try:
        return job()
    except (InterfaceError, OperationalError):
        if not any(connection.errors_occurred and not connection.is_usable() for connection in old):
            raise
    finally:
        tidy()
    try:
        return job()
    finally:
        tidy()
