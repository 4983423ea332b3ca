"""Readers in step: those who wait at the same place of a topic, and move on together.

Nearly all readers have the last event and wait for the next. Where they are is the same for all, so it is kept once,
and a flush touches nothing that is theirs alone but the servers' ends of their connections: with thousands of them,
to fetch from memory what a reader consists of takes longer than all that is done with it.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from .cursors import NONE_YET, Position
from .outlets import Write

Reader = TypeVar("Reader")


class Cohort(Generic[Reader]):
    """The readers of one topic who are in step, by what writes to them."""

    __slots__ = ("alone", "position", "several", "written_at")

    def __init__(self) -> None:
        #: Behind what all of them have.
        self.position = NONE_YET
        #: When something was last written to them.
        self.written_at = 0.0
        #: Those who read this topic alone; and those of several, with its index among theirs.
        self.alone: dict[Write, Reader] = {}
        self.several: dict[Write, tuple[Reader, int]] = {}

    def __bool__(self) -> bool:
        return bool(self.alone or self.several)

    def has_room_at(self, position: Position) -> bool:
        """Tell whether a reader who waits at a position can come in."""
        return position == self.position or not self

    def readers(self) -> list[Reader]:
        """Return who is in step now."""
        return [*self.alone.values(), *(reader for reader, _ in self.several.values())]
