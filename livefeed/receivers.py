"""Django's signals in, events out: one Receivers object per feed with a model, and ``live_event`` for all else.

In a transaction, the events are part of it. In autocommit Django has committed the row before ``post_save`` comes, so
the row is read again under a lock and its event is written and numbered in that same short transaction: otherwise two
savers could publish in another order than they saved, and an update could follow a deletion.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from django.apps import apps
from django.db import connections, models, transaction
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save
from django.dispatch import receiver

from . import relay
from .announcing import announce
from .changes import Changes
from .debts import append
from .events import Stretch
from .feeds import LiveFeed
from .history import get_history
from .publishing import emit, publish
from .signals import live_event
from .transactions import short_transaction


@receiver(live_event)
def publish_live_event(
    *, topic: str, data: Any = None, type: str = "message", store: bool = True, **kwargs: Any
) -> None:
    """Publish what was sent to the ``live_event`` signal."""
    publish(topic, data, type=type, store=store)


class Receivers:
    """The receivers of one feed."""

    def __init__(self, feed: LiveFeed, model: type[models.Model]) -> None:
        self._feed = feed
        self._model = model
        self._changes = Changes(feed, model)
        self._before = f"_livefeed_{feed.name}_before"
        self._raw = "_livefeed_raw"

    def connect(self) -> None:
        """Connect to every model that writes the feed's rows: the model, its proxies, parents and children."""
        for sender in _relatives(self._model):
            pre_save.connect(self.before_save, sender=sender, weak=False)
            post_save.connect(self.after_save, sender=sender, weak=False)
        for sender in _same_table(self._model):  # deleting a child sends the parent's signals too
            pre_delete.connect(self.before_delete, sender=sender, weak=False)
            post_delete.connect(self.after_delete, sender=sender, weak=False)
        for through in self._m2m_tables():
            m2m_changed.connect(self.m2m, sender=through, weak=False)

    def disconnect(self) -> None:
        """Undo :meth:`connect`."""
        for sender in _relatives(self._model):
            pre_save.disconnect(self.before_save, sender=sender)
            post_save.disconnect(self.after_save, sender=sender)
            pre_delete.disconnect(self.before_delete, sender=sender)
            post_delete.disconnect(self.after_delete, sender=sender)
        for through in self._m2m_tables():
            m2m_changed.disconnect(self.m2m, sender=through)

    def _m2m_tables(self) -> Iterator[Any]:
        named = {name.partition("__")[0] for name in self._feed.field_names}
        for field in self._model._meta.many_to_many:
            if field.name in named or self._feed.overrides("get_data", "get_topics"):
                yield field.remote_field.through

    # -- save -----------------------------------------------------------------------------------------------------

    def before_save(self, *, instance: models.Model, raw: bool, using: str, **kwargs: Any) -> None:
        if self._changes.moves and not raw and instance.pk is not None:
            topics = self._topics_of_row(instance, using)
            if topics is not None:
                instance.__dict__[self._before] = topics

    def after_save(
        self,
        *,
        instance: models.Model,
        created: bool,
        raw: bool,
        using: str,
        update_fields: Collection[str] | None,
        **kwargs: Any,
    ) -> None:
        if raw:
            instance.__dict__[self._raw] = True  # the fixture goes on with the many-to-many fields
            return
        instance.__dict__.pop(self._raw, None)
        before = instance.__dict__.pop(self._before, [] if self._changes.moves else None)
        trusted = self._changes.trusts(instance, update_fields)
        if not connections[using].in_atomic_block and connections[using].get_autocommit():
            if not (trusted and self._publish_as_saved(instance, using, created=created)):
                self._publish_row(self._changes.key_of(instance), using, created=created, before=before)
            return
        row = instance if trusted else self._changes.read(self._changes.key_of(instance), using)
        if row is not None:
            emit(self._changes.saved(row, created=created, before=before), using=using)

    def _publish_as_saved(self, instance: models.Model, using: str, *, created: bool) -> bool:
        """Publish what a trusted instance holds, by the statement that finds it still in the locked row; or tell not.

        It does in one go what :meth:`_publish_row` does, where the history can do that and nobody was faster.
        """
        history = get_history()
        row = self._changes.row_of(instance) if history.alias == using and relay.serves() else None
        if row is None:
            return False
        (event,) = self._changes.saved(instance, created=created, before=None)
        written = history.record_while(row, event)
        if written:
            relay.number_soon({event.topic})
        return written

    def _publish_row(
        self, key: dict[str, Any], using: str, *, created: bool = False, before: Sequence[str] | None = None
    ) -> None:
        """Publish what a row holds now, in a transaction of our own, under the row's lock."""
        history = get_history()

        def read_and_append() -> list[Stretch]:
            row = self._changes.read(key, using, lock=True)
            if row is None:
                return []  # deleted meanwhile, and that is published by whoever did it
            events = self._changes.saved(row, created=created, before=before)
            if history.alias != using:
                append(events)  # under the row's lock: two who save it publish in the order in which they did
            elif relay.serves():
                emit(events, using=using)
            else:
                return history.append(events)
            return []

        announce(short_transaction(using, read_and_append))

    def _topics_of_row(self, instance: models.Model, using: str) -> list[str] | None:
        """Return which topics the row belongs to before it is changed: in a transaction, under its lock."""
        in_transaction = connections[using].in_atomic_block
        row = self._changes.read(self._changes.key_of(instance), using, lock=in_transaction)
        return None if row is None else self._feed.topics_of(row)

    # -- delete ---------------------------------------------------------------------------------------------------

    def before_delete(self, *, instance: models.Model, using: str, origin: Any = None, **kwargs: Any) -> None:
        topics = self._topics_of_row(instance, using) if self._changes.moves else None
        notes = self._deletions(instance, origin)
        notes[instance.pk] = self._feed.topics_of(instance) if topics is None else topics

    def after_delete(self, *, instance: models.Model, using: str, origin: Any = None, **kwargs: Any) -> None:
        # Django may collect one row twice, as a proxy and as its parent: the first signal takes the note, and speaks.
        topics = self._deletions(instance, origin).pop(instance.pk, ())
        emit(self._changes.deleted(instance.pk, topics), using=using)

    def _deletions(self, instance: models.Model, origin: Any) -> dict[Any, list[str]]:
        """Return the notes of one deletion, by key; its ``origin`` (instance or queryset) is what it has in common."""
        holder = instance if origin is None else origin
        notes: dict[Any, list[str]] = holder.__dict__.setdefault(f"{self._before}_deletion", {})
        return notes

    # -- many-to-many ---------------------------------------------------------------------------------------------

    def m2m(
        self,
        *,
        sender: Any,
        instance: models.Model,
        action: str,
        reverse: bool,
        pk_set: set[Any] | None,
        using: str,
        **kwargs: Any,
    ) -> None:
        if self._raw in instance.__dict__:
            return
        note = f"{self._before}_m2m"
        if action.startswith("pre_"):
            # Lock before the rows of the relation are written: their foreign keys would share-lock the parent.
            keys = self._touched(sender, instance, reverse, pk_set, using)
            rows = self._changes.read_all({"pk__in": keys}, using, lock=True) if keys else ()
            instance.__dict__[note] = {row.pk: self._feed.topics_of(row) for row in rows}
            return
        before: dict[Any, list[str]] = instance.__dict__.pop(note, {})
        if action == "post_add" and self._m2m_field(sender).remote_field.symmetrical:
            # Django writes the other direction after this signal, without one: those rows are read after the commit.
            for pk in set(before) & (pk_set or set()):
                del before[pk]
                transaction.on_commit(self._publish_later({"pk": pk}, using), using=using, robust=True)
        for row in self._changes.read_all({"pk__in": list(before)}, using) if before else ():
            topics = before[row.pk] if self._changes.moves else None
            emit(self._changes.saved(row, created=False, before=topics), using=using)

    def _publish_later(self, key: dict[str, Any], using: str) -> Callable[[], None]:
        return lambda: self._publish_row(key, using)

    def _m2m_field(self, through: Any) -> Any:
        return next(field for field in self._model._meta.many_to_many if field.remote_field.through is through)

    def _touched(
        self, through: Any, instance: models.Model, reverse: bool, pk_set: set[Any] | None, using: str
    ) -> list[Any]:
        """Return the keys of the feed's rows that a change of the relation touches."""
        if pk_set is not None and not pk_set:
            return []
        field = self._m2m_field(through)
        own = [] if reverse else list(self._changes.key_of(instance).values())
        if not reverse and not field.remote_field.symmetrical:
            return own
        return own + list(pk_set or self._related(field, instance, using))

    def _related(self, field: Any, instance: models.Model, using: str) -> list[Any]:
        """Return the keys of the feed's rows that refer to an instance by a many-to-many field."""
        rows = self._model._base_manager.using(using).filter(**{field.name: instance.pk})
        return list(rows.values_list("pk", flat=True))


def _same_table(model: type[models.Model]) -> list[type[models.Model]]:
    """Return the models whose instances are rows of this model's own table: itself and the proxies."""
    concrete = model._meta.concrete_model
    return [other for other in apps.get_models(include_auto_created=True) if other._meta.concrete_model is concrete]


def _relatives(model: type[models.Model]) -> list[type[models.Model]]:
    """Return the models whose saves write columns of this model: its table's, its parents' and its children's."""
    concrete = model._meta.concrete_model or model
    family = []
    for other in apps.get_models(include_auto_created=True):
        table = other._meta.concrete_model or other
        if issubclass(table, concrete) or issubclass(concrete, table):
            family.append(other)
    return family
