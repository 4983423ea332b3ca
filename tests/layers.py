"""Channel layers that fail, each in one way of its own."""

from __future__ import annotations

import threading
from typing import Any

from channels.layers import InMemoryChannelLayer


class FailingLayer(InMemoryChannelLayer):
    """Refuses messages while ``away`` is set; ``asked`` is set whenever it was asked to send."""

    away = True
    asked = threading.Event()

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        try:
            if self.away:
                raise ConnectionRefusedError("Error 111 connecting to localhost:6379.")
            await super().group_send(group, message)
        finally:
            self.asked.set()


class BrokenLayer(InMemoryChannelLayer):
    """Can't even be made."""

    def __init__(self, **kwargs: Any) -> None:
        raise ImportError("no such driver")
