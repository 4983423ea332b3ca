"""What every keeper of leases can do. All methods are synchronous and may block: they run in a pool's thread."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from ..backends import backend
from ..exceptions import LimitReached

#: What the holder of a lease begins with that is no connection, but something one process does for all.
CHORE = "chore:"


class Claim(NamedTuple):
    """One limit that a connection counts against.

    ``holder`` is whose limit it is: ASCII, at most 200 characters, and before the first colon its kind, as in
    ``user:7`` or ``topic:news.article``. ``limit`` is in connections; with 0, no limit, it counts for others all the
    same.
    """

    holder: str
    limit: int

    def reached(self) -> LimitReached:
        """Return the error that says so."""
        return LimitReached("limit", self.limit, self.holder.partition(":")[0])


class LeaseRequest(NamedTuple):
    """What a connection asks a lease for.

    ``claims`` are the limits that it counts against, at least one, each of another holder; the first says whose
    connection it is. ``client`` is the page's own random id, or ""; ``process`` the hub; ``session`` a keyed digest
    of the session, or "".
    """

    claims: tuple[Claim, ...]
    client: str
    process: str
    session: str = ""
    topics: tuple[str, ...] = ()


class Connection(NamedTuple):
    """A live connection as the keeper sees it. ``holder`` is that of its first claim."""

    holder: str
    session: str
    topics: tuple[str, ...]
    process: str
    opened_at: datetime
    expires_at: datetime
    token: str


class Leases(ABC):
    """Who is connected, each until a time by the keeper's clock, and never more of them than a limit allows."""

    @abstractmethod
    def acquire(self, request: LeaseRequest) -> str:
        """Return the token of a new lease, or of the client's own one taken over.

        A lease has all claims of the request or none. The client's own one is one of the same first holder with the
        same ``client``: what it holds is not asked for again. Raises :exc:`livefeed.exceptions.LimitReached` for the
        first claim that has no place left.
        """

    def acquire_all(self, requests: Sequence[LeaseRequest]) -> list[str | Exception]:
        """Acquire a lease for each of several connections that wait at the same time.

        Returns in their order what :meth:`acquire` would return or raise. Raises what says that nobody got one.
        """
        return [self.attempt(request) for request in requests]

    def attempt(self, request: LeaseRequest) -> str | Exception:
        """Return what :meth:`acquire` returns or raises."""
        try:
            return self.acquire(request)
        except Exception as error:
            return error

    @abstractmethod
    def renew(self, process: str) -> frozenset[str]:
        """Prolong the leases of a process; return the tokens it still holds, with every claim.

        Others were taken over, taken away, or expired and their places are taken.
        """

    @abstractmethod
    def release(self, tokens: Collection[str]) -> None:
        """Give leases back."""

    @abstractmethod
    def revoke(self, *, holder: str = "", session: str = "", topic: str = "", tokens: Collection[str] = ()) -> int:
        """Take leases away: all that match every argument given. Return how many.

        Their processes notice when they renew them. ``holder`` is that of any of their claims. Raises ValueError where
        no argument is given, so that nobody ends every connection by mistake.
        """

    @abstractmethod
    def connections(self, *, holder: str = "", session: str = "", topic: str = "") -> Iterator[Connection]:
        """Yield what is live and matches every argument given, in no order; chores are no connections."""

    @abstractmethod
    def sweep(self) -> int:
        """Remove what is left of leases that expired long ago, whose holders never came back; return how many."""


def check_given(*arguments: object) -> None:
    """Raise ValueError where all of the arguments of :meth:`Leases.revoke` are empty."""
    if not any(arguments):
        raise ValueError("revoke() would end every connection. Give holder, session, topic or tokens.")


def batches(tokens: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yield tokens, so many at a time."""
    waiting = iter(tokens)
    while batch := list(islice(waiting, size)):
        yield batch


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
        token = leases.acquire(LeaseRequest((Claim(CHORE + name, 1),), client="", process=name))
    except LimitReached:
        yield False
        return
    try:
        yield True
    finally:
        leases.release([token])
