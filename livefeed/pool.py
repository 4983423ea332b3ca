"""The few threads in which the reading half does what blocks: history, leases, rules. Streams themselves hold none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, ParamSpec, TypeVar

from django.db import connections

P = ParamSpec("P")
T = TypeVar("T")

#: Threads, and so database connections, that one event loop's streams use together.
THREADS = 4


class Pool:
    """A bounded pool of threads, each with its own database connections, which outlive a job unless they broke."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking job in a thread; raise what it raises."""

        def work() -> T:
            try:
                return job(*args, **kwargs)
            finally:
                _drop_broken_connections()

        if self._executor is None:
            self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="livefeed")
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def close(self) -> None:
        """Let go of threads and connections; jobs that are under way end first. A later :meth:`run` makes new ones."""
        if self._executor is not None:
            everyone = Barrier(THREADS)  # nobody may take two of these jobs, so every thread gets one
            for _ in range(THREADS):
                self._executor.submit(_close_connections, everyone)
            self._executor.shutdown(wait=False)
            self._executor = None


def _close_connections(everyone: Barrier) -> None:
    connections.close_all()
    everyone.wait(timeout=60)


def _drop_broken_connections() -> None:
    connection: Any
    for connection in connections.all(initialized_only=True):
        if connection.errors_occurred:
            connection.close()
