"""Where events are durable and ordered: the truth. Backends: ``database`` (the default), ``redis`` and ``memory``."""

from .base import (
    EMPTY,
    PAGE_BYTES,
    Head,
    History,
    Page,
    Retention,
    Row,
    acursor,
    cursor,
    get_history,
    position_of,
    unbroken,
)

__all__ = [
    "EMPTY",
    "PAGE_BYTES",
    "Head",
    "History",
    "Page",
    "Retention",
    "Row",
    "acursor",
    "cursor",
    "get_history",
    "position_of",
    "unbroken",
]
