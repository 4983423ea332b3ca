"""The four tables: topics, their events, the leases of live connections, and the claims of leases.

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
    """One live connection, until ``expires_at`` by the database's clock, however many limits it counts against.

    ``holder`` is whose connection it is. One that begins with ``chore:`` is no connection, but what one process at a
    time does for all. ``session`` is a digest, and ``topics`` are names with spaces in between.
    """

    holder = ExactCharField(_("holder"), max_length=200)
    token = ExactCharField(_("token"), max_length=32, unique=True)
    client = ExactCharField(_("client"), max_length=64, blank=True)
    process = ExactCharField(_("process"), max_length=32, db_index=True)
    session = ExactCharField(_("session"), max_length=32, blank=True, default="", db_index=True)
    topics = models.TextField(_("topics"), blank=True)
    opened_at = models.DateTimeField(_("opened"), db_default=Now())
    expires_at = models.DateTimeField(_("expires"), db_index=True)

    class Meta:
        db_table = "livefeed_lease"
        verbose_name = _("connection")
        verbose_name_plural = _("connections")
        # Serves taking over one's own.
        indexes = [models.Index(fields=["holder", "client"], name="livefeed_lease_holder_client")]

    def __str__(self) -> str:
        return str(self.holder)


class LeaseClaim(models.Model):
    """One of the limits that a connection counts against: a numbered slot of a holder.

    The unique slot is the limit: however many connect at once, no more rows fit than there are slots. A row is never
    changed, and goes with its lease. That is no foreign key of the database's: each insert would lock the lease's row.
    """

    lease = models.ForeignKey(Lease, models.DO_NOTHING, related_name="claims", db_constraint=False)
    holder = ExactCharField(_("holder"), max_length=200)
    slot = models.PositiveIntegerField(_("slot"))

    class Meta:
        db_table = "livefeed_claim"
        verbose_name = _("claim")
        verbose_name_plural = _("claims")
        constraints = [models.UniqueConstraint(fields=["holder", "slot"], name="livefeed_claim_holder_slot")]

    def __str__(self) -> str:
        return f"{self.holder} #{self.slot}"
