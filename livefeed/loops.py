"""One of something for each event loop: a process may have several, after each other or in threads."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class OnePerLoop(Generic[T]):
    """Called, it returns the running event loop's own, which is made when it is first asked for and goes with the loop.

    Raises RuntimeError where no event loop runs.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, T] = weakref.WeakKeyDictionary()

    def __call__(self) -> T:
        loop = asyncio.get_running_loop()
        if loop not in self._made:
            self._made[loop] = self._make()
        return self._made[loop]
