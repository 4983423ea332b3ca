"""Writers that go step by step, each with a transaction of its own, so that their transactions overlap as a test says.

SQLite has one writer at a time: there the second one waits for the commit of the first, as does a reader's lease. The
fixture for database servers, where they do not, is in tests/steps_fixtures.py.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from django.db import connections, transaction

from livefeed import publish
from tests.writing import PATIENCE, Doomed

T = TypeVar("T")


class Writer:
    """Another process, as a thread with a connection and a transaction of its own, that does one step at a time."""

    def __init__(self, using: str = "default") -> None:
        self._using = using
        self._thread = ThreadPoolExecutor(1)
        self._transaction: Any = None

    def do(self, work: Callable[[], T]) -> T:
        """Do something in the writer's thread, to its end."""
        return self._thread.submit(work).result(PATIENCE)

    def begin(self) -> None:
        self._transaction = transaction.atomic(using=self._using)
        self.do(self._transaction.__enter__)

    def publish(self, topic: str, n: int) -> None:
        self.do(lambda: publish(topic, {"n": n}))

    def commit(self) -> None:
        self._end(None)

    def roll_back(self) -> None:
        self._end(Doomed())

    def _end(self, error: Doomed | None) -> None:
        ended, self._transaction = self._transaction, None
        self.do(lambda: ended.__exit__(type(error) if error else None, error, None))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._transaction is not None:
            self.roll_back()
        self.do(connections.close_all)
        self._thread.shutdown()
