"""Leases and their claims in one statement, which PostgreSQL can do: one round trip, and no transaction around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from ..conf import settings
from .base import LeaseRequest

_WRITE = """
WITH lease AS (
  INSERT INTO "livefeed_lease" (token, holder, client, process, session, topics, opened_at, expires_at)
  SELECT token, holder, client, process, session, topics, statement_timestamp(), statement_timestamp() + %s
  FROM (VALUES {given}) AS given (token, holder, client, process, session, topics)
  RETURNING id, token
)
INSERT INTO "livefeed_claim" (lease_id, holder, slot)
SELECT lease.id, taken.holder, taken.slot
FROM lease JOIN (VALUES {taken}) AS taken (holder, slot, token) ON taken.token = lease.token
ORDER BY taken.holder, taken.slot
"""
_GIVEN = "(%s::text, %s::text, %s::text, %s::text, %s::text, %s::text)"
_TAKEN = "(%s::text, %s::integer, %s::text)"


def write(
    connection: BaseDatabaseWrapper, requests: Mapping[str, LeaseRequest], slots: Sequence[tuple[str, int, str]]
) -> None:
    """Write leases by their tokens, and their claims: holder, slot and token, in the order in which they are taken."""
    params: list[Any] = [timedelta(seconds=settings.LEASE_SECONDS)]
    for token, request in requests.items():
        params += [token, request.claims[0].holder, request.client, request.process, request.session]
        params.append(" ".join(request.topics))
    params += [value for slot in slots for value in slot]
    statement = _WRITE.format(given=", ".join([_GIVEN] * len(requests)), taken=", ".join([_TAKEN] * len(slots)))
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
