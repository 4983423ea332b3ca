"""One feed's view of the database: which row it is, what it holds, and which topics it belonged to before.

What is published is what the database holds. The instance in hand is used where it can't differ; else the row is read
again, in the writer's transaction, or in a transaction of ours under the row's lock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from django.db import connections, models

from .events import Event, encode
from .feeds import LiveFeed
from .history import Row
from .items import event_data
from .values import field_of, holds_what_the_database_holds, relations


class Changes:
    """Turns changed rows of a feed's model into events."""

    def __init__(self, feed: LiveFeed, model: type[models.Model]) -> None:
        self.feed = feed
        self.model = model
        #: Whether a save can move a row from topic to topic.
        self.moves = feed.overrides("get_topics")
        self._asks_more = feed.overrides("get_topics", "get_data")
        # Such rows can be read by the statement that locks them. Of others it would lock too much, or show the rest as
        # it was before it waited, and a manager of the site's own may ask for what can't be locked.
        concrete = model._meta.concrete_model or model
        in_one_table = not concrete._meta.parents and type(model._base_manager) is models.Manager
        self._is_locked_as_read = in_one_table and not relations(feed.field_names)

    def key_of(self, instance: models.Model) -> dict[str, Any]:
        """Return the lookup that finds the instance's row in the feed's model, which may be its parent or its child."""
        if isinstance(instance, self.model._meta.concrete_model or self.model):
            return {"pk": getattr(instance, self.model._meta.pk.attname)}
        return {type(instance)._meta.pk.attname: instance.pk}

    def trusts(self, instance: models.Model, update_fields: Collection[str] | None) -> bool:
        """Tell whether reading the row again would bring nothing new."""
        return (
            update_fields is None
            and not self._asks_more
            and isinstance(instance, self.model._meta.concrete_model or self.model)
            and holds_what_the_database_holds(instance, self.feed.field_names)
        )

    def row_of(self, instance: models.Model) -> Row | None:
        """Return the row that a trusted instance stands for; None where its columns can't be compared one by one."""
        key: Any = self.model._meta.pk
        fields = [field_of(self.model, name) for name in self.feed.field_names]
        if not self._is_locked_as_read or any(getattr(field, "db_collation", None) for field in fields):
            return None  # by a collation of its own a text may be equal that is another one
        columns = {field.column: getattr(instance, field.attname) for field in fields}
        return Row(self.model._meta.db_table, key.column, getattr(instance, key.attname), columns)

    def read(self, key: dict[str, Any], using: str, *, lock: bool = False) -> models.Model | None:
        """Read a row again; None where it is gone, or is not of the feed's model."""
        return next(iter(self.read_all(key, using, lock=lock)), None)

    def read_all(self, key: dict[str, Any], using: str, *, lock: bool = False) -> Sequence[models.Model]:
        """Read rows again, with what the feed's paths need; ``lock`` holds them until the transaction ends."""
        rows = self.model._base_manager.using(using).filter(**key)
        features = connections[using].features
        if lock and self._is_locked_as_read and features.has_select_for_update:
            return list(_for_update(rows, features))
        if lock:
            _lock(rows, features)
        paths = relations(self.feed.field_names)
        return list(rows.select_related(*paths) if paths else rows)

    def saved(self, row: models.Model, *, created: bool, before: Sequence[str] | None) -> list[Event]:
        """Return the events of a row that is there; ``before`` are the topics it was on, None if they can't change."""
        now = self.feed.topics_of(row)
        if created or before is None:
            kept, entered, left = ([], now, []) if created else (now, [], [])
        else:
            kept = [topic for topic in now if topic in before]
            entered = [topic for topic in now if topic not in before]
            left = [topic for topic in before if topic not in now]
        events = self.deleted(row.pk, left)
        if now:
            data = encode(event_data(self.feed, row))
            events += [Event(topic, "created", data) for topic in entered]
            events += [Event(topic, "updated", data) for topic in kept]
        return events

    def deleted(self, pk: Any, topics: Iterable[str]) -> list[Event]:
        """Return the events of a row that is gone from these topics."""
        return [Event(topic, "deleted", encode({"pk": pk})) for topic in topics]


def _for_update(rows: models.QuerySet[models.Model], features: Any) -> models.QuerySet[models.Model]:
    """Have rows locked, but not against inserts that refer to them: those would wait for us, and we for them."""
    return rows.order_by("pk").select_for_update(no_key=features.has_select_for_no_key_update)


def _lock(rows: models.QuerySet[models.Model], features: Any) -> None:
    """Lock rows by a statement of its own, which is the first of its transaction where we began that."""
    if features.has_select_for_update:
        list(_for_update(rows, features).values_list("pk"))
    else:
        # SQLite locks the database by the first write, and a transaction that read before may find it too late for one.
        key = rows.model._meta.pk.name
        rows.update(**{key: models.F(key)})
