"""The three tables: topics, their events, and the leases of live connections.

No foreign key leads from an event to its topic: the key-share lock of an insert would block the numbering until the
writer commits. Nobody writes these tables but :mod:`livefeed.history.database` and :mod:`livefeed.leases.database`.
"""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from .cursors import EPOCH_LENGTH
from .events import MAX_TYPE_LENGTH
from .topics import MAX_LENGTH


class BinaryCollation:
    """Text that MariaDB and MySQL keep in one character set and compare byte by byte, whatever their defaults are."""

    collation: str

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        parameters: dict[str, Any] = dict(super().db_parameters(connection))  # type: ignore[misc]
        if connection.vendor == "mysql":
            parameters["collation"] = self.collation
        return parameters


class ExactCharField(BinaryCollation, models.CharField):  # type: ignore[type-arg]
    """ASCII text; by default MariaDB and MySQL take "News" and "news" for the same."""

    collation = "ascii_bin"


class JSONTextField(BinaryCollation, models.TextField):  # type: ignore[type-arg]
    """Text in any language; where latin1 is the default it would refuse most of them."""

    collation = "utf8mb4_bin"


class StoredTopic(models.Model):
    """A topic that ever had an event: the epoch and the number of its newest event, and how far it was trimmed.

    ``trim_at`` says when there will be something to trim; it is set to now by a numbering past ``trim_head``.
    """

    name = ExactCharField(_("topic"), max_length=MAX_LENGTH, unique=True)
    epoch = ExactCharField(_("epoch"), max_length=EPOCH_LENGTH)
    head = models.BigIntegerField(_("newest number"), default=0)
    floor = models.BigIntegerField(_("trimmed up to"), default=0)
    moved_at = models.DateTimeField(_("moved"), db_default=Now(), db_index=True)
    trim_at = models.DateTimeField(_("to be trimmed"), null=True, db_default=Now(), db_index=True)
    trim_head = models.BigIntegerField(_("to be trimmed past number"), null=True)

    class Meta:
        db_table = "livefeed_topic"
        verbose_name = _("topic")
        verbose_name_plural = _("topics")

    def __str__(self) -> str:
        return str(self.name)


class StoredEvent(models.Model):
    """An event, in the order of insertion by ``id``; without ``seq`` until its transaction committed."""

    topic = ExactCharField(_("topic"), max_length=MAX_LENGTH)
    seq = models.BigIntegerField(_("number"), null=True)
    uid = ExactCharField(_("event id"), max_length=32)
    type = ExactCharField(_("type"), max_length=MAX_TYPE_LENGTH)
    data = JSONTextField(_("data"))
    size = models.PositiveIntegerField(_("size in bytes"))
    created_at = models.DateTimeField(_("created"))
    numbered_at = models.DateTimeField(_("numbered"), null=True)

    class Meta:
        db_table = "livefeed_event"
        verbose_name = _("event")
        verbose_name_plural = _("events")
        # Serves numbering (seq is null), reading on from a position, and trimming a prefix.
        constraints = [models.UniqueConstraint(fields=["topic", "seq"], name="livefeed_event_topic_seq")]
        # Serves looking for leftovers. MariaDB has no partial index, which would do elsewhere.
        indexes = [models.Index(fields=["numbered_at", "id"], name="livefeed_event_numbered_at")]

    def __str__(self) -> str:
        return f"{self.topic} {self.seq or '–'} {self.type}"


class Lease(models.Model):
    """One live connection: a numbered slot of its holder, until ``expires_at`` by the database's clock.

    The unique slot is the limit: however many connect at once, no more rows fit than there are slots. A holder that
    begins with ``chore:`` is no connection, but what one process at a time does for all.
    """

    holder = ExactCharField(_("holder"), max_length=200)
    slot = models.PositiveIntegerField(_("slot"))
    token = ExactCharField(_("token"), max_length=32, unique=True)
    client = ExactCharField(_("client"), max_length=64, blank=True)
    process = ExactCharField(_("process"), max_length=32, db_index=True)
    topics = models.TextField(_("topics"), blank=True)
    opened_at = models.DateTimeField(_("opened"), db_default=Now())
    expires_at = models.DateTimeField(_("expires"), db_index=True)

    class Meta:
        db_table = "livefeed_lease"
        verbose_name = _("connection")
        verbose_name_plural = _("connections")
        constraints = [models.UniqueConstraint(fields=["holder", "slot"], name="livefeed_lease_holder_slot")]

    def __str__(self) -> str:
        return f"{self.holder} #{self.slot}"
