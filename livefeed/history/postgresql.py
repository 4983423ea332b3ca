"""Many events by one parameter, and numbering in one statement: one round trip, and no transaction around it.

A statement that numbers has one snapshot, taken before it locks anything. So each of these looks up the topic's head in
that, and moves it on only where it still is the same once the topic's row is locked: at READ COMMITTED an UPDATE that
had to wait for a row looks at its conditions again, with the row as it is then (PostgreSQL's documentation, 13.2.1).
Each numbering moves the head, hence nobody has numbered anything in between, and what the snapshot shows without a
number has none.

Otherwise nothing is changed and None returned: the topic is new, or somebody else is at it, or there is nothing to do.
Whoever holds the topic's lock already when the statement begins finds it fresh in any case.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..events import Event, Stretch
from .base import Row
from .rows import event_of, portions, values_of

#: What moving the head on by ``{count}`` changes in the topic's row. The time is that behind the lock, and not that of
#: the statement's begin: no look may come in between by longer than it overlaps, and ages grow with the numbers.
_MOVE = """
  head = {head} + {count}, moved_at = clock_timestamp(),
  trim_at = CASE WHEN {head} + {count} > trim_head THEN clock_timestamp() ELSE trim_at END
"""

_NUMBER = f"""
WITH fresh AS MATERIALIZED (
  SELECT event.id, topic.head, row_number() OVER (ORDER BY event.id) AS place, count(*) OVER () AS count
  FROM "livefeed_topic" AS topic JOIN "livefeed_event" AS event ON event.topic = topic.name AND event.seq IS NULL
  WHERE topic.name = %(topic)s
), moved AS (
  UPDATE "livefeed_topic" SET {_MOVE.format(head="fresh.head", count="fresh.count")} FROM fresh
  WHERE "livefeed_topic".name = %(topic)s AND "livefeed_topic".head = fresh.head AND fresh.place = 1
  RETURNING "livefeed_topic".epoch
)
UPDATE "livefeed_event" AS event SET seq = fresh.head + fresh.place, numbered_at = clock_timestamp()
FROM fresh, moved WHERE event.id = fresh.id
RETURNING event.seq, moved.epoch, event.uid, event.type, event.data, event.created_at
"""

_APPEND = f"""
WITH topic AS MATERIALIZED (
  SELECT head FROM "livefeed_topic" WHERE name = %s
  AND NOT EXISTS (SELECT 1 FROM "livefeed_event" AS event WHERE event.topic = %s AND event.seq IS NULL)
), moved AS (
  UPDATE "livefeed_topic" SET {_MOVE.format(head="topic.head", count="%s")} FROM topic
  WHERE "livefeed_topic".name = %s AND "livefeed_topic".head = topic.head
  RETURNING topic.head, "livefeed_topic".epoch
)
INSERT INTO "livefeed_event" (topic, seq, uid, type, data, size, created_at, numbered_at)
SELECT %s, moved.head + place, uid, type, data, size, created_at, clock_timestamp()
FROM moved, (VALUES {{given}}) AS given (place, uid, type, data, size, created_at) ORDER BY place
RETURNING seq, (SELECT epoch FROM moved)
"""
_INSERT = """INSERT INTO "livefeed_event" (topic, uid, type, data, size, created_at)
SELECT topic, uid, type, data, size, created_at FROM ROWS FROM (json_to_recordset(%s::json)
  AS (topic text, uid text, type text, data text, size integer, created_at timestamptz)
) WITH ORDINALITY ORDER BY ordinality
"""
# A SELECT that had to wait for a row it locks goes on with what that row is then (13.2.1 as well), or without it.
_RECORD = """
WITH held AS MATERIALIZED (SELECT {columns} FROM {table} WHERE {key} = %s FOR NO KEY UPDATE)
INSERT INTO "livefeed_event" (topic, uid, type, data, size, created_at)
SELECT %s::text, %s::text, %s::text, %s::text, %s::integer, %s::timestamptz FROM held WHERE {same}
"""
_COLUMNS = ("topic", "uid", "type", "data", "size", "created_at")
_GIVEN = "(%s, %s, %s, %s, %s, %s::timestamptz)"


def insert(connection: BaseDatabaseWrapper, events: Sequence[Event]) -> None:
    """Write events, without numbers, in the transaction at hand.

    A statement with a parameter for each value takes the driver as long to read as to run, and it is never the same.
    """
    with transaction.mark_for_rollback_on_error(using=connection.alias), connection.cursor() as cursor:
        for some in portions(events, most=len(events)):
            rows = [dict(zip(_COLUMNS, (event.topic, *values_of(connection, event)), strict=True)) for event in some]
            cursor.execute(_INSERT, [json.dumps(rows, default=str, ensure_ascii=False)])


def number(connection: BaseDatabaseWrapper, topic: str) -> Stretch | None:
    """Give the committed events of a topic their numbers."""
    with connection.cursor() as cursor:
        cursor.execute(_NUMBER, {"topic": topic})
        rows = sorted(cursor.fetchall())
    if not rows:
        return None
    return Stretch(topic, rows[0][1], tuple(event_of(topic, seq, *event) for seq, _, *event in rows))


def append(connection: BaseDatabaseWrapper, topic: str, events: Sequence[Event]) -> Stretch | None:
    """Write and number events of a topic, unless others wait there for their numbers."""
    params: list[Any] = [topic, topic, len(events), len(events), topic, topic]
    for place, event in enumerate(events, 1):
        params += [place, *values_of(connection, event)]
    with connection.cursor() as cursor:
        cursor.execute(_APPEND.format(given=", ".join([_GIVEN] * len(events))), params)
        rows = sorted(cursor.fetchall())
    if not rows:
        return None
    numbered = tuple(replace(event, seq=seq) for event, (seq, _) in zip(events, rows, strict=True))
    return Stretch(topic, rows[0][1], numbered)


def record_while(connection: BaseDatabaseWrapper, row: Row, event: Event) -> bool:
    """Write an event without a number if a row, once it is locked, holds what it is to hold."""
    sql = _record(row.table, row.key, tuple(row.columns))
    with connection.cursor() as cursor:
        cursor.execute(sql, [row.value, event.topic, *values_of(connection, event), *row.columns.values()])
        return bool(cursor.rowcount)


@cache
def _record(table: str, key: str, columns: tuple[str, ...]) -> str:
    names = [_quoted(column) for column in columns]
    same = " AND ".join(f"held.{name} IS NOT DISTINCT FROM %s" for name in names)
    return _RECORD.format(columns=", ".join(names), table=_quoted(table), key=_quoted(key), same=same)


def _quoted(name: str) -> str:
    """Return a name of the site's as Django quotes it, for a statement that has parameters."""
    return (name if name.startswith('"') and name.endswith('"') else f'"{name}"').replace("%", "%%")
