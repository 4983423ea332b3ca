"""How many requests for streams Django works on at a time, and who is next.

To find out who asks and what they may read takes some milliseconds, a thread, and often a database connection. Let
them all in at once, and two thousand that come together keep everybody waiting: those who were first as well, and the
rest of the site. So a few are inside, and the others wait outside, where they cost next to nothing, each address in a
line of its own: whoever sends a thousand requests waits for them, and hardly anybody else does.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from .conf import settings
from .exceptions import LimitReached
from .loops import OnePerLoop

#: Requests of one address that may wait; of more, each is told to come back.
LINE = 1000
#: Seconds after which one who waits is told to come back, and after which nobody waits any more for one who is inside:
#: a rule that hangs, or a database, keeps others out for so long and not for ever.
LONGEST_WAIT, LONGEST_STAY = 30.0, 10.0


class Door:
    """The door of one event loop. It is passed with :meth:`enter`, and each passage ends with :meth:`Passage.leave`."""

    def __init__(self) -> None:
        self._inside = 0
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def enter(self, address: str) -> Passage:
        """Come in, as soon as it is one's turn. Raises :exc:`LimitReached` where too many of the address wait."""
        if self._inside < settings.CONNECTING or not settings.CONNECTING:
            self._inside += 1
        else:
            await self._wait(address)
        return Passage(self)

    async def _wait(self, address: str) -> None:
        line = self._lines.setdefault(address, deque())
        if len(line) >= LINE:
            raise LimitReached("capacity", LINE)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                await turn
        except asyncio.CancelledError:
            self._give_up(turn)
            raise
        except TimeoutError:
            self._give_up(turn)
            raise LimitReached("capacity", settings.CONNECTING) from None

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        if turn.done() and not turn.cancelled():
            self.leave()  # it was our turn in that very moment

    def leave(self) -> None:
        """Let the next one in: of the address whose turn it is, the one that waits for the longest."""
        self._inside -= 1
        while self._lines and self._inside < max(settings.CONNECTING, 1):
            address, line = self._lines.popitem(last=False)
            turn = line.popleft()
            if line:
                self._lines[address] = line  # behind the other addresses
            if not turn.done():
                self._inside += 1
                turn.set_result(None)


class Passage:
    """One request inside."""

    def __init__(self, door: Door) -> None:
        self._door: Door | None = door
        self._at_the_latest = asyncio.get_running_loop().call_later(LONGEST_STAY, self.leave)

    def leave(self) -> None:
        """Make room, once, however often it is said."""
        door, self._door = self._door, None
        self._at_the_latest.cancel()
        if door is not None:
            door.leave()


#: The door of the running event loop.
door = OnePerLoop(Door)
