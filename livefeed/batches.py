"""Lists, cut for queries that ask for many rows by their keys at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

#: Keys in one query: half of the least that any database takes.
BATCH = 500


def batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the items in the same order, at most 500 at a time."""
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
