"""What is done every so often on an event loop, and done again when it failed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger("livefeed.chores")


class Chore:
    """Something to do every so many seconds; what it raises is logged, and it is done again next time."""

    def __init__(self, name: str, every: float, work: Callable[[], Awaitable[object]]) -> None:
        self._name = name
        self._every = every
        self._work = work
        self._done_at = asyncio.get_running_loop().time()

    async def do_if_due(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._done_at < self._every:
            return
        self._done_at = now
        try:
            await self._work()
        except Exception:
            logger.exception("%s failed; it is repeated.", self._name)
