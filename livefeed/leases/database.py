"""Leases in Django's database.

A lease is a row, and so is each of its claims: (holder, slot) with a unique key, so that every limit holds by itself.
However many connect in the same moment, no two can insert the same slot.

A connection looks first, outside of any transaction: is there one of its own to take over, and which slots are free?
Then it writes all that it needs in one short transaction, its claims by one statement, in the order of their holders.
So all claims are there or none, nobody ever sees a claim of somebody who is refused, and none is refused because of
one. Whoever finds a slot taken meanwhile rolls back and looks again; nobody waits for longer than others write.

The lease alone expires, and the row of one that is over goes before its claims may be taken: a process that comes
back late, and prolongs the row in that moment, keeps either all or nothing. Time is the database's.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple, TypeVar

from django.db import IntegrityError, connections, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now

from ..conf import settings
from ..exceptions import LimitReached
from ..models import Lease, LeaseClaim
from ..transactions import short_statement, short_transaction
from . import postgresql
from .base import CHORE, Claim, Connection, LeaseRequest, Leases, batches, check_given

T = TypeVar("T")

#: How often a connection looks again that keeps finding its slot taken.
TRIES = 100
#: Slots that are looked at of a holder with a larger limit, from somewhere among them; of others it is all.
WINDOW = 64
#: Slots of a holder without a limit.
BOUNDLESS = 2**31 - 1
#: Leases in one statement.
BATCH = 500


class Ghost(NamedTuple):
    """The client's own lease that is to be taken over, and the holders of its claims."""

    pk: int
    token: str
    holders: frozenset[str]


class Slot(NamedTuple):
    """A slot to take, and the expired lease that has it."""

    holder: str
    number: int
    expired: int | None


class Slots(NamedTuple):
    """What was seen of a holder's slots: those that were looked at, and which leases have some, alive and expired."""

    claim: Claim
    seen: range
    alive: set[int]
    expired: dict[int, int]

    @property
    def all_seen(self) -> bool:
        return len(self.seen) == self.claim.limit

    def free(self) -> list[int]:
        """Return the slots that may be taken: as many fewer as there are held beyond the limit, since it was lowered.

        It is the lowest then, so that all who look choose among the same.
        """
        free = [slot for slot in self.seen if slot not in self.alive]
        if self.all_seen:
            return free[: max(0, self.claim.limit - len(self.alive))]
        return free if all(slot in self.seen for slot in self.alive) else []

    @property
    def has_unused(self) -> bool:
        """Whether there is a free slot that is nobody's, not even of a lease that expired."""
        return not self.claim.limit or any(slot not in self.expired for slot in self.free())

    def take(self) -> Slot:
        """Choose a slot that is nobody's, and count it as taken."""
        slot = self.choose() if self.claim.limit else Slot(self.claim.holder, random.randrange(BOUNDLESS), None)
        self.alive.add(slot.number)
        return slot

    def choose(self) -> Slot:
        """Return one of the free slots, any, so that few choose the same; one that is nobody's, if there is one."""
        free = self.free()
        number = random.choice([slot for slot in free if slot not in self.expired] or free)
        return Slot(self.claim.holder, number, self.expired.get(number))


class Beaten(Exception):
    """Somebody else was quicker: look again."""


class DatabaseLeases(Leases):
    """Leases as rows of ``livefeed_lease`` and ``livefeed_claim`` in ``LIVEFEED_DATABASE``."""

    def __init__(self) -> None:
        self.alias = settings.DATABASE

    def acquire(self, request: LeaseRequest) -> str:
        for attempt in range(1, TRIES + 1):
            try:
                return self._acquire(request)
            except Beaten:
                pass
            except IntegrityError:  # of a slot, unless it comes for ever
                if attempt == TRIES:
                    raise
        raise LimitReached("unavailable", 0)

    def _acquire(self, request: LeaseRequest) -> str:
        ghost = self._ghost(request)
        wanted = [claim for claim in request.claims if ghost is None or claim.holder not in ghost.holders]
        try:
            slots = self._find_slots(wanted)
        except LimitReached:
            if self._ghost(request) != ghost:  # the place is this client's, which just connected a second time
                raise Beaten from None
            raise
        return self._all_or_nothing(lambda: self._write(request, ghost, slots))

    def _ghost(self, request: LeaseRequest) -> Ghost | None:
        if not request.client:
            return None
        mine = self._claims.filter(lease__holder=request.claims[0].holder, lease__client=request.client)
        rows = list(mine.order_by("lease").values_list("lease", "lease__token", "holder"))
        if not rows:
            return None
        pk, token, _ = rows[0]
        return Ghost(pk, token, frozenset(holder for lease, _, holder in rows if lease == pk))

    # -- slots ------------------------------------------------------------------------------------------------------

    def _find_slots(self, claims: Sequence[Claim]) -> list[Slot]:
        """Return a slot for each claim, in the order in which everyone takes them.

        Raises :exc:`LimitReached` for the first one that has none left.
        """
        found = self._look({claim: _window(claim) for claim in claims})
        crowded = [claim for claim, slots in found.items() if not slots.free() and not slots.all_seen]
        found |= self._look({claim: range(claim.limit) for claim in crowded})
        for claim in claims:
            if not found[claim].free():
                raise claim.reached()
        return sorted(slots.choose() for slots in found.values())

    def _look(self, ranges: dict[Claim, range]) -> dict[Claim, Slots]:
        """Look at slots, and at those beyond the limit: they count too. Who has no limit finds one by chance."""
        found = {claim: Slots(claim, seen, set(), {}) for claim, seen in ranges.items()}
        limited = {claim.holder: slots for claim, slots in found.items() if claim.limit}
        for holder, slot, lease, lives in self._seen(limited.values()) if limited else ():
            if lives:
                limited[holder].alive.add(slot)
            else:
                limited[holder].expired[slot] = lease
        return found

    def _seen(self, limited: Collection[Slots]) -> Iterable[tuple[str, int, int, bool]]:
        """Return what is there of slots: holder, number, lease and whether that lives."""
        connection = connections[self.alias]
        if connection.vendor == "postgresql":
            ranges = [(claim.holder, seen.start, seen.stop, claim.limit) for claim, seen, _, _ in limited]
            return postgresql.look(connection, ranges)
        wanted = Q()
        for slots in limited:
            wanted |= _beyond_or_in(slots)
        alive = Exists(self._leases.filter(pk=OuterRef("lease"), expires_at__gte=Now()))
        return self._claims.filter(wanted).values_list("holder", "slot", "lease", alive)

    # -- writing ----------------------------------------------------------------------------------------------------

    def _write(self, request: LeaseRequest, ghost: Ghost | None, slots: Sequence[Slot]) -> str:
        token = uuid.uuid4().hex
        values: dict[str, Any] = {
            "token": token,
            "process": request.process,
            "session": request.session,
            "topics": " ".join(request.topics),
            "expires_at": _expiry(),
        }
        if ghost is None:
            lease = self._leases.create(holder=request.claims[0].holder, client=request.client, **values).pk
        else:
            lease = self._become(ghost, request, values)
        if expired := {slot.expired for slot in slots if slot.expired is not None}:
            self._delete(self._leases.filter(expires_at__lt=Now()), sorted(expired))
        if slots:
            claims = [LeaseClaim(lease_id=lease, holder=holder, slot=slot) for holder, slot, _ in slots]
            self._claims.bulk_create(claims)
        return token

    def _become(self, ghost: Ghost, request: LeaseRequest, values: dict[str, Any]) -> int:
        """Make the ghost's lease ours, with its claims; give back those that we have no use for."""
        if not self._leases.filter(pk=ghost.pk, token=ghost.token).update(opened_at=Now(), **values):
            raise Beaten
        if unused := ghost.holders - {claim.holder for claim in request.claims}:
            self._claims.filter(lease=ghost.pk, holder__in=unused).delete()
        return ghost.pk

    def _all_or_nothing(self, work: Callable[[], T]) -> T:
        if not connections[self.alias].in_atomic_block:
            return short_transaction(self.alias, work)
        with transaction.atomic(using=self.alias):  # a savepoint: what failed must not spoil the transaction around
            return work()

    def _delete(self, leases: QuerySet[Lease], keys: Collection[int]) -> int:
        """Delete the leases with these keys that are still among those, and the claims of all that are no more."""
        gone, _ = leases.filter(pk__in=keys).delete()
        self._claims.filter(lease__in=keys).exclude(Exists(self._leases.filter(pk=OuterRef("lease")))).delete()
        return gone

    # -- many at once -----------------------------------------------------------------------------------------------

    def acquire_all(self, requests: Sequence[LeaseRequest]) -> list[str | Exception]:
        """Write what needs nothing but free slots in one go; who takes something over, or finds none, comes after.

        So nobody is refused because of others who come along and may get no lease in the end.
        """
        try:
            tokens = self._acquire_plain(requests)
        except IntegrityError:  # somebody else was quicker with one of the slots
            tokens = {}
        return [tokens.get(place) or self.attempt(request) for place, request in enumerate(requests)]

    def _acquire_plain(self, requests: Sequence[LeaseRequest]) -> dict[int, str]:
        """Return the tokens of those that were written, by the place of their request."""
        plain = self._choose_for_all(requests)
        tokens = {place: uuid.uuid4().hex for place in plain}
        slots = sorted((slot.holder, slot.number, tokens[place]) for place, chosen in plain.items() for slot in chosen)
        if plain:
            self._write_all({tokens[place]: requests[place] for place in plain}, slots)
        return tokens

    def _choose_for_all(self, requests: Sequence[LeaseRequest]) -> dict[int, list[Slot]]:
        """Return slots by the place of the request, for those that find some which nobody had or chose before."""
        alone = self._not_taking_over(requests)
        claims = {claim.holder: claim for place in alone for claim in requests[place].claims}
        found = self._look({claim: _window(claim) for claim in claims.values()})
        return {
            place: [found[claim].take() for claim in requests[place].claims]
            for place in alone
            if all(claim in found and found[claim].has_unused for claim in requests[place].claims)
        }

    def _not_taking_over(self, requests: Sequence[LeaseRequest]) -> list[int]:
        """Return the places of the requests whose page has no lease, nor comes twice."""
        pages = [(request.claims[0].holder, request.client) for request in requests]
        known = self._known_pages({page for page in pages if page[1]})
        places = []
        for place, page in enumerate(pages):
            if page not in known:
                places.append(place)
            if page[1]:
                known.add(page)
        return places

    def _known_pages(self, pages: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        if not pages:
            return set()
        holders, clients = zip(*pages, strict=True)
        there = self._leases.filter(holder__in=holders, client__in=clients)
        return set(there.values_list("holder", "client"))

    def _write_all(self, requests: dict[str, LeaseRequest], slots: Sequence[tuple[str, int, str]]) -> None:
        """Write leases by their tokens, and claims: holder, number, and whose, in the order in which all take them."""
        connection = connections[self.alias]
        if connection.vendor == "postgresql" and not connection.in_atomic_block:
            short_statement(self.alias, partial(postgresql.write, connection, requests, slots))
        else:
            self._all_or_nothing(partial(self._insert_all, requests, slots))

    def _insert_all(self, requests: dict[str, LeaseRequest], slots: Sequence[tuple[str, int, str]]) -> None:
        leases = [_lease(token, request) for token, request in requests.items()]
        self._leases.bulk_create(leases)
        keys = {lease.token: lease.pk for lease in leases}
        if None in keys.values():  # MySQL does not say
            keys = dict(self._leases.filter(token__in=list(requests)).values_list("token", "pk"))
        self._claims.bulk_create(
            LeaseClaim(lease_id=keys[token], holder=holder, slot=slot) for holder, slot, token in slots
        )

    # -- afterwards -------------------------------------------------------------------------------------------------

    def renew(self, process: str) -> frozenset[str]:
        def prolong() -> frozenset[str]:
            mine = self._leases.filter(process=process)
            mine.update(expires_at=_expiry())
            return frozenset(mine.values_list("token", flat=True))

        return short_transaction(self.alias, prolong)

    def release(self, tokens: Collection[str]) -> None:
        for some in batches(tokens, BATCH):
            self._remove(self._leases.filter(token__in=some))

    def revoke(self, *, holder: str = "", session: str = "", topic: str = "", tokens: Collection[str] = ()) -> int:
        check_given(holder, session, topic, tokens)
        matching = self._matching(holder, session, topic)
        if not tokens:
            return self._remove(matching, topic)
        return sum(self._remove(matching.filter(token__in=some), topic) for some in batches(tokens, BATCH))

    def connections(self, *, holder: str = "", session: str = "", topic: str = "") -> Iterator[Connection]:
        live = self._matching(holder, session, topic).filter(expires_at__gte=Now()).exclude(holder__startswith=CHORE)
        for some in _portions(live):
            for lease in some:
                if _has(lease, topic):
                    yield _connection(lease)

    def sweep(self) -> int:
        """Remove leases that expired an hour ago or earlier, whose holders never came back; return how many."""
        gone = self._remove(self._leases.filter(expires_at__lt=Now() - timedelta(hours=1)))
        self._claims.exclude(Exists(self._leases.filter(pk=OuterRef("lease")))).delete()
        return gone

    def _matching(self, holder: str, session: str, topic: str) -> QuerySet[Lease]:
        """Return the leases that match what is given; some have a topic that only resembles the one in question."""
        leases = self._leases
        if holder:
            leases = leases.filter(claims__holder=holder)
        if session:
            leases = leases.filter(session=session)
        return leases.filter(topics__contains=topic) if topic else leases

    def _remove(self, leases: QuerySet[Lease], topic: str = "") -> int:
        """Delete leases and their claims, some at a time; return how many leases that were.

        The keys are read before, as a transaction that has read first may find that it can't write any more (SQLite).
        A lease that was taken over meanwhile has another token, and stays.
        """
        gone = 0
        for some in _portions(leases):
            seen = {lease.pk: lease.token for lease in some if _has(lease, topic)}
            same = self._leases.filter(token__in=seen.values())
            if seen:
                gone += short_transaction(self.alias, lambda: self._delete(same, list(seen)))  # noqa: B023
        return gone

    @property
    def _leases(self) -> QuerySet[Lease]:
        return Lease.objects.using(self.alias)

    @property
    def _claims(self) -> QuerySet[LeaseClaim]:
        return LeaseClaim.objects.using(self.alias)


def _window(claim: Claim) -> range:
    """Return which slots to look at first: all of a few, of many some, and without a limit it is any."""
    if 0 < claim.limit <= WINDOW:
        return range(claim.limit)
    start = random.randrange((claim.limit or BOUNDLESS) - WINDOW)
    return range(start, start + (WINDOW if claim.limit else 1))


def _beyond_or_in(slots: Slots) -> Q:
    holder = Q(holder=slots.claim.holder)
    if slots.all_seen:
        return holder
    seen = Q(slot__gte=slots.seen.start, slot__lt=slots.seen.stop)
    return holder & seen | holder & Q(slot__gte=slots.claim.limit)


def _portions(leases: QuerySet[Lease]) -> Iterator[Sequence[Lease]]:
    """Yield leases in the order of their keys, BATCH at a time."""
    some = list(leases.order_by("pk")[:BATCH])
    while some:
        yield some
        more = leases.filter(pk__gt=some[-1].pk).order_by("pk")
        some = list(more[:BATCH]) if len(some) == BATCH else []


def _has(lease: Lease, topic: str) -> bool:
    return not topic or topic in lease.topics.split()


def _connection(lease: Lease) -> Connection:
    return Connection(
        holder=lease.holder,
        session=lease.session,
        topics=tuple(lease.topics.split()),
        process=lease.process,
        opened_at=lease.opened_at,
        expires_at=lease.expires_at,
        token=lease.token,
    )


def _lease(token: str, request: LeaseRequest) -> Lease:
    return Lease(
        holder=request.claims[0].holder,
        token=token,
        client=request.client,
        process=request.process,
        session=request.session,
        topics=" ".join(request.topics),
        expires_at=_expiry(),
    )


def _expiry() -> CombinedExpression:
    return Now() + timedelta(seconds=settings.LEASE_SECONDS)
