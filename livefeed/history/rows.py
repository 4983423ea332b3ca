"""An event as a row of the database, and back: without Django's model layer, which takes as long as all the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from django.conf import settings as django_settings
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from ..events import Event
from .base import PAGE_BYTES, fitting

#: Rows per statement: under SQLite's limit of 999 variables, with room.
BATCH = 150

_INSERT = "INSERT INTO {} (topic, uid, type, data, size, created_at) VALUES "
_ROW = "(%s, %s, %s, %s, %s, %s)"


def insert(connection: BaseDatabaseWrapper, events: Sequence[Event]) -> None:
    """Write events, without numbers, in the transaction at hand."""
    sql = _INSERT.format(connection.ops.quote_name("livefeed_event"))
    with transaction.mark_for_rollback_on_error(using=connection.alias), connection.cursor() as cursor:
        for some in portions(events):
            params = [value for event in some for value in (event.topic, *values_of(connection, event))]
            cursor.execute(sql + ", ".join([_ROW] * len(some)), params)


def portions(events: Sequence[Event], most: int = BATCH) -> Iterator[Sequence[Event]]:
    """Cut events for statements of so many rows, and about PAGE_BYTES of data: MariaDB takes 16 MiB, quotes doubled."""
    start = 0
    while start < len(events):
        count = fitting((event.size for event in events[start : start + most]), PAGE_BYTES)
        yield events[start : start + count]
        start += count


def values_of(connection: BaseDatabaseWrapper, event: Event) -> tuple[Any, ...]:
    """Return what stands in an event's columns behind its topic: uid, type, data, size, created_at."""
    moment = connection.ops.adapt_datetimefield_value(stored_moment(event))
    return event.id, event.type, event.json, event.size, moment


def stored_moment(event: Event) -> datetime:
    """Return when an event was published, as Django takes it for the database."""
    return event.created_at if django_settings.USE_TZ else timezone.make_naive(event.created_at)


def event_of(topic: str, seq: int | None, uid: str, type: str, data: str, created_at: datetime) -> Event:
    """Return the event that stands in a row; ``created_at`` as Django reads it."""
    if not django_settings.USE_TZ:
        created_at = timezone.make_aware(created_at)
    return Event(topic, type, data, uid, created_at.astimezone(UTC), seq)
