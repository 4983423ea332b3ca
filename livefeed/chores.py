"""What is done every so often on an event loop, done again when it failed, and brought to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

logger = logging.getLogger("livefeed.chores")

#: Seconds after which a task that was cancelled, and goes on, is cancelled again.
AGAIN = 0.5


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


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks, and those that go on again and again, until all are over; each has AGAIN seconds to clean up.

    A cancellation may get lost: ``asyncio.wait_for()`` of Python 3.11, and with it the client of Redis, swallows one
    that comes in the very moment in which what it waits for is done.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN)
    await asyncio.gather(*tasks, return_exceptions=True)
