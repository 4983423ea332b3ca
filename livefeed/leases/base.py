"""What every keeper of leases can do. All methods are synchronous and may block: they run in a pool's thread."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import NamedTuple

from ..backends import backend


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
