"""What is told once events are committed and numbered: the other processes, and whoever observes in this one."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from . import broker
from .events import Event, Stretch
from .signals import event_published

logger = logging.getLogger("livefeed.publishing")


def announce(stretches: Iterable[Stretch]) -> None:
    """Send stretches to the broker and ``event_published`` to its receivers. Callable in any thread; never raises."""
    for stretch in stretches:
        broker.send(stretch)
        for event in stretch.events:
            _observe(event)


def _observe(event: Event) -> None:
    for receiver, outcome in event_published.send_robust(sender=Event, event=event):
        if isinstance(outcome, Exception):
            logger.error("event_published: %r failed for %s %s", receiver, event.topic, event.seq, exc_info=outcome)
