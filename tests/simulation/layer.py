"""The Channels layer: one Redis that loses, doubles, delays and mixes up messages, restarts, hangs, forgets members."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .world import CURRENT

if TYPE_CHECKING:
    from .world import Process, World

#: Messages that one channel holds; what comes then is dropped.
CAPACITY = 20


@dataclass
class Weather:
    """How a message fares: the probability that it is lost, that it comes twice, and its longest delay in seconds."""

    loss: float = 0.0
    doubling: float = 0.0
    delay: float = 0.01


class Layer:
    """What all processes share: groups and their members."""

    def __init__(self, world: World, *, tells: bool) -> None:
        self.world = world
        #: Whether a client hears of a restart: the classic layer's receive() fails, the pub/sub layer subscribes anew.
        self.tells = tells
        self.weather = Weather()
        self.up = True
        self.hangs = False
        self.groups: dict[str, dict[str, LayerClient]] = defaultdict(dict)
        self.clients: list[LayerClient] = []
        self.names = itertools.count(1)

    def restart(self) -> None:
        """Lose all messages and, for a client that is not told, nothing else."""
        self.world.tell("the layer restarts")
        if self.tells:
            self.groups.clear()
        for client in self.clients:
            client.lose()

    def forget(self) -> None:
        """Forget every membership, as after ``group_expiry`` or a flush."""
        self.world.tell("the layer forgets its members")
        self.groups.clear()

    def send(self, group: str, message: dict[str, Any]) -> None:
        for channel, client in list(self.groups[group].items()):
            copies = 2 if self.world.chance(self.weather.doubling) else 1
            if self.world.chance(self.weather.loss):
                self.world.tell(f"a message to {channel} is lost")
                copies = 0
            for _ in range(copies):
                delay = self.world.random.uniform(0, self.weather.delay)
                self.world.after(delay, lambda client=client, channel=channel: client.put(channel, message))  # type: ignore[misc]


class LayerClient:
    """The layer as one process sees it: the methods of the Channels specification."""

    group_expiry = 60

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._queues: dict[str, deque[dict[str, Any]]] = {}
        self._waiters: dict[str, asyncio.Future[None]] = {}
        self._hung: list[asyncio.Future[None]] = []
        self.process: Process | None = None
        layer.clients.append(self)

    async def _call(self) -> None:
        if self._layer.hangs:
            self._hung.append(asyncio.get_running_loop().create_future())
            await self._hung[-1]
        await asyncio.sleep(self._layer.world.random.uniform(0, 0.002))
        if not self._layer.up:
            raise ConnectionError("the layer is away")

    async def new_channel(self, prefix: str = "specific") -> str:
        await self._call()
        channel = f"{prefix}.{next(self._layer.names)}"
        self._queues[channel] = deque()
        return channel

    async def group_add(self, group: str, channel: str) -> None:
        await self._call()
        self._layer.groups[group][channel] = self

    async def group_discard(self, group: str, channel: str) -> None:
        await self._call()
        self._layer.groups[group].pop(channel, None)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        await self._call()
        self._layer.send(group, message)

    async def receive(self, channel: str) -> dict[str, Any]:
        await asyncio.sleep(0)
        if not self._layer.up and self._layer.tells:
            raise ConnectionError("the layer is away")
        queue = self._queues[channel]
        while not queue:
            self._waiters[channel] = asyncio.get_running_loop().create_future()
            await self._waiters[channel]
        return queue.popleft()

    def put(self, channel: str, message: dict[str, Any]) -> None:
        """Take a message off the wire."""
        queue = self._queues[channel]
        if len(queue) < CAPACITY and self._layer.up and not self._layer.hangs:
            queue.append(message)
            self._wake(channel)

    def lose(self) -> None:
        """Lose all messages, and learn of it if this kind of layer tells."""
        for queue in self._queues.values():
            queue.clear()
        for future in self._hung:
            _fail(future)
        self._hung.clear()
        if self._layer.tells:
            for future in self._waiters.values():
                _fail(future)

    def _wake(self, channel: str) -> None:
        waiter = self._waiters.get(channel)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _fail(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(ConnectionError("the layer went away"))


def current_layer() -> Any:
    """Return the layer of the process whose turn it is: stands in for :func:`livefeed.broker.channel_layer`."""
    return CURRENT[0].layer
