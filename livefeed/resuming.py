"""Where a reader who comes back goes on, or why that can't be known. Plain Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .cursors import EPOCH_LENGTH, NONE_YET, Position
from .history import Head

#: The events after the position are not kept any more.
TRIMMED: Final = "trimmed"
#: The topic's numbers are not those that the cursor counts in: history lost, restored, or renewed by hand.
EPOCH: Final = "epoch"
#: The cursor is further on than the topic ever was.
AHEAD: Final = "ahead"
#: The text that came back is not a cursor of ours.
GARBAGE: Final = "garbage"

#: The cursor could be followed, but a stream replays no more than LIVEFEED_MAX_REPLAY events of a topic.
BEHIND: Final = "behind"
#: Where a reader stands whose cursor is garbage: in an epoch that no topic has, so that it never goes on by mistake.
NOWHERE: Final = Position("-" * EPOCH_LENGTH, 0)


def lost(position: Position, head: Head) -> str:
    """Return why a reader at this position can't go on without a hole, or "" where it can."""
    if position == NONE_YET:
        return TRIMMED if head.floor else ""
    if position.epoch != head.epoch:
        return EPOCH
    if position.seq > head.seq:
        return AHEAD
    return TRIMMED if position.seq < head.floor else ""


def missed(position: Position, head: Head, first: int | None) -> str:
    """Return why a reader can't go on with the events that were found, of which ``first`` is the first number."""
    hole = head.seq > position.seq and first != position.seq + 1
    return lost(position, head) or (TRIMMED if hole else "")


def too_far(position: Position, head: Head, most: int) -> str:
    """Return why a reader is not to be served all that follows, or "" where it is at most so many events (0: any)."""
    return BEHIND if most and head.seq - position.seq > most else ""


def best(claims: Sequence[Position], head: Head) -> Position:
    """Return which of several positions that a cursor claims on one topic to go on from: the one that loses nothing."""
    usable = [claim for claim in claims if not lost(claim, head)]
    return min(usable or claims, key=lambda claim: claim.seq)
