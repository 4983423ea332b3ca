"""When is all that was published here on its way? A thread of the process numbers it, another sends it."""

import time
from collections.abc import Collection


def settle(topics: Collection[str], limit: float = 10.0) -> None:
    """Wait until nothing that was published here on these topics waits to be numbered, or for the layer."""
    from livefeed import broker
    from livefeed.models import StoredEvent

    deadline = time.monotonic() + limit
    while StoredEvent.objects.filter(topic__in=topics, seq=None).exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    broker._outboxes.flush(limit)
