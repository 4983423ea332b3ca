"""What is done every so often on an event loop, and done again when it failed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger("livefeed.chores")


async def repeat(name: str, every: float, work: Callable[[], Awaitable[object]]) -> None:
    """Do some work every so many seconds until cancelled.

    What it raises is logged under the chore's name, once until it works again: a database may be away for long.
    """
    failing = False
    while True:
        await asyncio.sleep(every)
        try:
            await work()
        except Exception as error:
            if failing:
                logger.debug("%s failed again: %r", name, error)
            else:
                logger.exception("%s failed; it is repeated.", name)
            failing = True
        else:
            if failing:
                logger.warning("%s works again.", name)
            failing = False
