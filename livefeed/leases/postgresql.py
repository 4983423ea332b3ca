"""What each connect says to PostgreSQL, as text: to put it together anew each time would take longer than to do it.

Leases and their claims are written in one statement: one round trip, and no transaction around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from ..conf import settings
from .base import LeaseRequest

_LOOK = """
SELECT claim.holder, claim.slot, claim.lease_id, EXISTS (
  SELECT 1 FROM "livefeed_lease" lease WHERE lease.id = claim.lease_id AND lease.expires_at >= statement_timestamp()
) AS lives
FROM "livefeed_claim" claim
WHERE """
_SEEN = "claim.holder = %s AND (claim.slot >= %s AND claim.slot < %s OR claim.slot >= %s)"
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


def look(
    connection: BaseDatabaseWrapper, ranges: Sequence[tuple[str, int, int, int]]
) -> list[tuple[str, int, int, bool]]:
    """Return holder, slot, lease and whether that lives, for all slots from the first number to before the second.

    And for those from the third on: the holder's limit, beyond which there are some if it was lowered.
    """
    with connection.cursor() as cursor:
        cursor.execute(_LOOK + " OR ".join([_SEEN] * len(ranges)), [value for each in ranges for value in each])
        rows: list[tuple[str, int, int, bool]] = cursor.fetchall()
    return rows


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
