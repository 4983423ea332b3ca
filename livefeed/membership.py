"""A hub's membership in the groups of the Channels layer: joining, leaving, receiving, and joining again.

Nobody who can be served from the history waits for it: a layer that fails or hangs is away, and is asked again until it
is back. It may also forget its members without a word, so every group is joined again well before it would expire.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterable

from . import broker
from .events import Stretch
from .revocations import Revocation

logger = logging.getLogger("livefeed.hub")

#: Seconds that joining or leaving a topic may take: a layer that hangs is away.
JOIN_SECONDS = 2.0
#: Seconds before the layer is tried again after it failed: the first and the longest pause.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


class Membership:
    """The groups that one hub is a member of: ``wanted`` tells for which topics, ``take`` gets what comes."""

    def __init__(
        self, wanted: Callable[[], Collection[str]], take: Callable[[Stretch | list[Revocation]], None]
    ) -> None:
        self._wanted = wanted
        self._take = take
        self._inbox = broker.Inbox()
        self._joining: dict[str, asyncio.Task[None]] = {}
        self._unjoined: dict[str, None] = {}  # topics to join again, in order
        self._joining_again: asyncio.Task[None] | None = None
        self._layer_is_away = False

    @property
    def expiry(self) -> float:
        """Seconds after which the layer forgets a member that did not join again."""
        return self._inbox.expiry

    def under_way(self) -> list[asyncio.Task[None]]:
        """Return the tasks that join something now: to be cancelled at the end."""
        return [*self._joining.values(), *([self._joining_again] if self._joining_again else [])]

    # -- joining and leaving --------------------------------------------------------------------------------------

    async def join(self, topics: Iterable[str]) -> None:
        """Join topics; come back at once where the layer is away, and soon where it turns out to be."""
        joining = [self.join_soon(topic) for topic in topics]
        await asyncio.wait(joining, timeout=0 if self._layer_is_away else JOIN_SECONDS)

    def join_soon(self, topic: str) -> asyncio.Task[None]:
        """Start to join a topic, or return the attempt under way. No reader of the history waits for it."""
        if topic not in self._joining:
            self._joining[topic] = asyncio.get_running_loop().create_task(self._join(topic))
            self._joining[topic].add_done_callback(lambda _: self._joining.pop(topic))
        return self._joining[topic]

    async def _join(self, topic: str) -> None:
        try:
            async with asyncio.timeout(JOIN_SECONDS):
                await self._inbox.join(topic)
        except Exception as error:
            self._unjoined[topic] = None
            if not self._layer_is_away:
                logger.warning("Joining %s failed (%r); readers are served from the history.", topic, error)
            self._layer_is_away = True
        else:
            self._layer_is_away = False
            self._unjoined.pop(topic, None)

    async def leave(self, topic: str) -> None:
        """Leave a topic, as far as the layer is there."""
        with contextlib.suppress(Exception):  # the layer is away: it will forget us by itself
            async with asyncio.timeout(JOIN_SECONDS):
                await self._inbox.leave(topic)

    # -- joining again --------------------------------------------------------------------------------------------

    def doubt(self, topic: str) -> None:
        """Note that a topic may not be joined; it is joined again with the next that are."""
        self._unjoined[topic] = None

    async def renew(self) -> None:
        """Join every topic again: the layer may have forgotten its members."""
        self._unjoined.update(dict.fromkeys(self._wanted()))
        self.join_again_soon()

    def join_again_soon(self) -> None:
        """Start to join what could not be joined, if that is not under way."""
        if self._unjoined and (self._joining_again is None or self._joining_again.done()):
            self._joining_again = asyncio.get_running_loop().create_task(self._join_again())

    async def _join_again(self) -> None:
        """Join one topic after the other; a layer that is still away is asked once, and again at the next look."""
        for topic in list(self._unjoined):
            if topic in self._wanted():
                await asyncio.shield(self.join_soon(topic))
                if self._layer_is_away:
                    return
            else:
                self._unjoined.pop(topic, None)

    # -- receiving ------------------------------------------------------------------------------------------------

    async def receive(self) -> None:
        """Receive until cancelled; after the layer failed, join everything again."""
        pause = FIRST_PAUSE
        while True:
            try:
                self._take(await self._inbox.receive())
                pause = FIRST_PAUSE
            except broker.NotOurs as error:
                logger.warning("A message on the channel layer is not ours: %s", error)
            except Exception as error:
                logger.warning("The channel layer is away (%r); readers are served from the history.", error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                await self.renew()
