"""Leases in Django's database.

A lease is a row (holder, slot) with a unique key, so that the limit holds by itself: however many connect in the same
moment, no two can insert the same slot, and nobody holds a lock while another one waits. Time is the database's.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now

from ..conf import settings
from ..exceptions import LimitReached
from ..models import Lease
from ..transactions import short_transaction
from .base import LeaseRequest, Leases


class DatabaseLeases(Leases):
    """Leases as rows of ``livefeed_lease`` in ``LIVEFEED_DATABASE``."""

    def __init__(self) -> None:
        self.alias = settings.DATABASE

    def acquire(self, request: LeaseRequest, limit: int) -> str:
        token = uuid.uuid4().hex
        while True:
            # Each step is one statement that either has its effect or has none: nothing to lock, nothing to undo.
            if self._take_over(request, token) or self._take_expired(request, token, limit):
                return token
            if request.client and self._leases.filter(holder=request.holder, client=request.client).exists():
                continue  # another connection of this client was quicker: take it over from that one
            if self._insert(request, self._free_slot(request.holder, limit), token):
                return token

    def _take_over(self, request: LeaseRequest, token: str) -> bool:
        mine = self._leases.filter(holder=request.holder, client=request.client)
        return bool(request.client) and self._take(mine, request, token)

    def _take_expired(self, request: LeaseRequest, token: str, limit: int) -> bool:
        expired = self._leases.filter(holder=request.holder, expires_at__lt=Now())
        return self._take(expired.filter(slot__lt=limit) if limit else expired, request, token)

    def _take(self, rows: QuerySet[Lease], request: LeaseRequest, token: str) -> bool:
        """Make one of these rows ours: the first that is still what it was when we saw it."""
        return any(
            rows.filter(token=seen).update(
                token=token,
                client=request.client,
                process=request.process,
                topics=request.topics,
                opened_at=Now(),
                expires_at=_expiry(),
            )
            for seen in list(rows.values_list("token", flat=True))
        )

    def _free_slot(self, holder: str, limit: int) -> int:
        """Return the lowest slot that nobody holds; raise :exc:`LimitReached` where as many as allowed are held."""
        held = set(self._leases.filter(holder=holder, expires_at__gte=Now()).values_list("slot", flat=True))
        if limit and len(held) >= limit:
            raise LimitReached("limit", limit)
        return next(slot for slot in range(len(held) + 1) if slot not in held)

    def _insert(self, request: LeaseRequest, slot: int, token: str) -> bool:
        try:
            with transaction.atomic(using=self.alias):
                self._leases.create(**request._asdict(), slot=slot, token=token, expires_at=_expiry())
        except IntegrityError:
            return False  # somebody was quicker; look again
        return True

    def renew(self, process: str) -> frozenset[str]:
        def prolong() -> frozenset[str]:
            mine = self._leases.filter(process=process)
            mine.update(expires_at=_expiry())
            return frozenset(mine.values_list("token", flat=True))

        return short_transaction(self.alias, prolong)

    def release(self, tokens: Collection[str]) -> None:
        short_transaction(self.alias, lambda: self._leases.filter(token__in=tokens).delete())

    def sweep(self) -> int:
        """Remove leases that expired an hour ago or earlier, whose holders never came back; return how many."""
        gone, _ = self._leases.filter(expires_at__lt=Now() - timedelta(hours=1)).delete()
        return gone

    @property
    def _leases(self) -> QuerySet[Lease]:
        return Lease.objects.using(self.alias)


def _expiry() -> CombinedExpression:
    return Now() + timedelta(seconds=settings.LEASE_SECONDS)
