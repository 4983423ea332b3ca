"""Trimming the history: what the feeds and the settings do not keep, by one process of the cluster at a time."""

from __future__ import annotations

from collections.abc import Iterable

from .history import get_history
from .leases import chore
from .registry import registry


def trim(topics: Iterable[str] | None = None) -> int | None:
    """Remove what is kept no more, of these topics or of all; return how many events went.

    Returns None where another process is at it. One that takes longer than its lease may be joined by another: that
    does no harm, since each range is removed under its topic's lock, from where the topic then begins.
    """
    with chore("trim") as mine:
        return get_history().trim(registry.retention, topics) if mine else None
