"""Several threads that begin in the same moment: what a test of a race needs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from django.db import connections

T = TypeVar("T")

#: Seconds after which a thread is given up.
PATIENCE = 60.0


def at_once(works: Sequence[Callable[[], T]]) -> list[T]:
    """Run several in a thread each, which begin in the same moment; return what they return, or raise it.

    Each has database connections of its own, which are closed behind it. Raises TimeoutError for one that never ends.
    """
    begin = threading.Barrier(len(works))
    outcomes: list[Future[T]] = [Future() for _ in works]

    def run(work: Callable[[], T], outcome: Future[T]) -> None:
        try:
            begin.wait(PATIENCE)
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in zip(works, outcomes, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return [outcome.result(timeout=0) for outcome in outcomes]
