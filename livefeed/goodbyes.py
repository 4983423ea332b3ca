"""SIGTERM and SIGINT: every stream ends with ``livefeed-closing`` before the server stops.

Without that uvicorn and granian would wait for ever for streams that have no end.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from .conf import settings
from .daphne import daphne_requests
from .roster import get_roster

_goodbyes: dict[int, Any] = {}


def say_goodbye_on_signals() -> None:
    """Chain ourselves in front of the server's handlers of SIGTERM and SIGINT: first the goodbyes, then its own way.

    Done when the first stream is asked for, in the main thread only: earlier the server has not set its handlers yet,
    and later a stream may begin behind the signal and keep the server from ending. A second signal goes straight to it.
    """
    if _goodbyes or not settings.DRAIN_SECONDS or threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        previous = signal.getsignal(number)
        _goodbyes[number] = previous
        if callable(previous) and previous is not signal.default_int_handler:
            signal.signal(number, _Goodbye(loop, previous))


class _Goodbye:
    """A signal handler that drains the streams before it lets the previous handler stop the server."""

    def __init__(self, loop: asyncio.AbstractEventLoop, previous: Callable[[int, FrameType | None], Any]) -> None:
        self._loop = loop
        self._previous = previous
        self._task: asyncio.Task[None] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._task is not None or self._loop.is_closed():
            self._previous(number, frame)
        else:
            self._loop.call_soon_threadsafe(self._begin, number)

    def _begin(self, number: int) -> None:
        if self._task is None:
            self._task = self._loop.create_task(self._drain(number))

    async def _drain(self, number: int) -> None:
        try:
            await get_roster().drain(settings.DRAIN_SECONDS)
            await daphne_requests().end(settings.DRAIN_SECONDS)
        finally:
            self._previous(number, None)
