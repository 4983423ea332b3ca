"""What every keeper of leases can do. All methods are synchronous and may block: they run in a pool's thread."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ..backends import backend
from ..exceptions import LimitReached

#: What the holder of a lease begins with that is no connection, but something one process does for all.
CHORE = "chore:"


class LeaseRequest(NamedTuple):
    """What a connection asks a lease for.

    ``holder`` is whose limit it counts against; ``client`` the page's own random id, or ""; ``process`` the hub.
    """

    holder: str
    client: str
    process: str
    topics: str


class Leases(ABC):
    """Numbered slots per holder, each held until a time by the keeper's clock."""

    @abstractmethod
    def acquire(self, request: LeaseRequest, limit: int) -> str:
        """Return the token of a new lease, or of the client's own one taken over.

        Raises :exc:`livefeed.exceptions.LimitReached` where all ``limit`` slots are held; 0 means no limit.
        """

    @abstractmethod
    def renew(self, process: str) -> frozenset[str]:
        """Prolong the leases of a process; return the tokens it still holds (others were taken over, or expired)."""

    @abstractmethod
    def release(self, tokens: Collection[str]) -> None:
        """Give leases back."""

    @abstractmethod
    def sweep(self) -> int:
        """Remove leases that expired long ago, whose holders never came back; return how many."""


def get_leases() -> Leases:
    """Return the keeper of leases that ``LIVEFEED_LEASES`` names."""
    return backend("LEASES", Leases)


@contextmanager
def chore(name: str) -> Iterator[bool]:
    """Let one process of the cluster at a time do something: the block gets True where it may, and False elsewhere.

    A process that dies in the block holds the chore for LIVEFEED_LEASE_SECONDS at most. One that takes longer than that
    may be joined by another one, so what is done here has to bear that.
    """
    leases = get_leases()
    try:
        token = leases.acquire(LeaseRequest(CHORE + name, client="", process=name, topics=""), 1)
    except LimitReached:
        yield False
        return
    try:
        yield True
    finally:
        leases.release([token])
