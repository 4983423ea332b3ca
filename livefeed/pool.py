"""The few threads in which the reading half does what blocks: history, leases, rules. Streams themselves hold none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Thread
from typing import Any, ParamSpec, TypeVar

from django.db import InterfaceError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

P = ParamSpec("P")
T = TypeVar("T")

#: Threads, and so database connections, that one event loop's streams use together.
THREADS = 4


class Pool:
    """A bounded pool of threads, each with its own database connections, which outlive a job unless they broke."""

    def __init__(self) -> None:
        self._workers: Workers | None = None
        self._jobs = 0

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking job in a thread; raise what it raises.

        It is run once more if a database connection of earlier jobs turns out to be broken: each job has to be one
        that may be repeated.
        """
        if self._workers is None:
            self._workers = Workers()
        workers = self._workers

        done = asyncio.get_running_loop().run_in_executor(workers.executor, workers.work, partial(job, *args, **kwargs))
        self._jobs += 1
        done.add_done_callback(self._count_down)
        return await done

    def _count_down(self, job: asyncio.Future[Any]) -> None:
        self._jobs -= 1

    def close_if_idle(self) -> None:
        """:meth:`close`, but not while jobs are under way: hung ones would keep their threads beside new ones."""
        if not self._jobs:
            self.close()

    def close(self) -> None:
        """Let go of threads and connections, when the jobs under way have ended. A later :meth:`run` makes new ones."""
        workers, self._workers = self._workers, None
        if workers is not None:
            Thread(target=workers.end, name="livefeed_end", daemon=True).start()


class Workers:
    """The threads of a pool, from their first job to their last, and their connections."""

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(THREADS, thread_name_prefix="livefeed")
        self._connections: set[BaseDatabaseWrapper] = set()

    def work(self, job: Callable[[], T]) -> T:
        """Do a job in this thread. After a restart of the database each thread finds its old connection broken."""
        old = [connection for connection in connections.all(initialized_only=True) if connection.connection is not None]
        try:
            return job()
        except (InterfaceError, OperationalError):
            if not any(connection.errors_occurred and not connection.is_usable() for connection in old):
                raise
        finally:
            self.tidy()
        try:
            return job()
        finally:
            self.tidy()

    def tidy(self) -> None:
        """Close this thread's connections that broke, so that the next job gets new ones; remember the others."""
        for connection in connections.all(initialized_only=True):
            if connection.errors_occurred:
                connection.close()
            if connection not in self._connections:
                connection.inc_thread_sharing()  # the thread that closes it in the end is another one
                self._connections.add(connection)

    def end(self) -> None:
        """Wait for the jobs under way, end the threads, close their connections."""
        self.executor.shutdown(wait=True)
        for connection in self._connections:
            connection.close()
