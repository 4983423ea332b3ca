"""Ending what no longer holds: ``disconnect()`` and ``recheck()``, for the live connections of every process.

What Django tells by a signal (a logout, another password, a permission more or less) is passed on from here: at once
through the layer. Where that is away, each process finds out by itself: whose rights ended at its next look at them
(LIVEFEED_RECHECK_INTERVAL), and who was disconnected when it prolongs its leases, which were taken away.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from asgiref.sync import sync_to_async
from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_out
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.db.models import Model
from django.db.models.signals import m2m_changed, post_delete, post_save

from . import broker
from .conf import settings
from .leases import get_leases
from .publishing import refuse_running_loop
from .revocations import EVERYBODY, Revocation
from .topics import hashed, validate_topic, viewer_key

logger = logging.getLogger("livefeed.revoking")


def disconnect(*, user: Any = None, session: Any = None, topic: str = "") -> None:
    """Close live connections: those of a user, of a session, of a topic, or those that all of what is given fits.

    ``user`` is a user or its primary key, ``session`` a session or its key. In a transaction of ``LIVEFEED_DATABASE``
    it happens when that commits. Whoever may still read comes back after some seconds; so change the rule first.

    Raises ValueError where nobody is named, :exc:`~livefeed.exceptions.InvalidTopic`, and
    :exc:`~livefeed.exceptions.WrongContext` in a running event loop, where it would block: use :func:`adisconnect`.
    """
    refuse_running_loop("disconnect()", "adisconnect(…)")
    if user is None and session is None and not topic:
        raise ValueError("disconnect() would close every connection there is. Name a user, a session or a topic.")
    tell(_revocation(user, session, topic, close=True))


async def adisconnect(*, user: Any = None, session: Any = None, topic: str = "") -> None:
    """Close live connections; the async twin of :func:`disconnect`, with the same arguments and errors."""
    await sync_to_async(disconnect)(user=user, session=session, topic=topic)


def recheck(*, user: Any = None, session: Any = None, topic: str = "") -> None:
    """Ask the rules again, now, for live connections: call it when something changed that a rule of yours looks at.

    Takes what :func:`disconnect` takes; without an argument everybody is asked about. Streams whose rules still hold
    stay open. Without it the rules are asked again every ``LIVEFEED_RECHECK_INTERVAL`` seconds.
    """
    refuse_running_loop("recheck()", "arecheck(…)")
    tell(_revocation(user, session, topic, close=False))


async def arecheck(*, user: Any = None, session: Any = None, topic: str = "") -> None:
    """Ask the rules again; the async twin of :func:`recheck`, with the same arguments and errors."""
    await sync_to_async(recheck)(user=user, session=session, topic=topic)


def tell(revocation: Revocation, *, using: str = "") -> None:
    """Tell every process, once the transaction at hand commits on the database ``using`` (LIVEFEED_DATABASE)."""
    transaction.on_commit(lambda: _tell(revocation), using=using or settings.DATABASE, robust=True)


def _tell(revocation: Revocation) -> None:
    if revocation.close:
        try:
            get_leases().revoke(
                holder=revocation.holder,
                session=revocation.session,
                topic=revocation.topic,
                tokens=revocation.leases,
            )
        except Exception:
            logger.exception("Leases could not be taken away; only processes that the layer reaches close streams.")
    broker.tell(revocation)


def _revocation(user: Any, session: Any, topic: str, *, close: bool) -> Revocation:
    key = getattr(session, "session_key", session)
    if session is not None and not key:
        raise ValueError(f"{session!r} has no key, so that nobody's connection could be its. Give a stored session.")
    return Revocation(
        "" if user is None else holder_of(user),
        "" if session is None else hashed("session", key),
        validate_topic(topic) if topic else "",
        close=close,
    )


def holder_of(user: Any) -> str:
    """Return whose connections are those of a user, or of the user with a primary key. Raises ValueError for nobody."""
    known = user if hasattr(user, "pk") else SimpleNamespace(pk=user, is_authenticated=True)
    if known.pk is None or not known.is_authenticated:
        raise ValueError(f"{user!r} is nobody who could be signed in. Give a saved user, or its primary key.")
    return viewer_key(known, None)


# -- what Django tells ------------------------------------------------------------------------------------------------

#: A user's columns that no right depends on: every login writes it.
HARMLESS = frozenset({"last_login"})


def connect() -> None:
    """Listen to what ends rights.

    Not to the end of sessions: with a receiver there, Django would load each of the old ones that it removes in bulk.
    """
    user_logged_out.connect(_logged_out, dispatch_uid="livefeed.revoking")
    with suppress(ImproperlyConfigured):  # a site without users
        _listen_to_users(get_user_model())
    if apps.is_installed("django.contrib.auth"):
        group = apps.get_model("auth", "Group")
        _listen(m2m_changed, group.permissions.through, _rights_changed)
        _listen(post_delete, group, _rights_changed)
        _listen(post_delete, apps.get_model("auth", "Permission"), _rights_changed)


def _listen_to_users(user_model: type[Model]) -> None:
    for model in apps.get_models():
        if issubclass(model, user_model):
            _listen(post_save, model, _user_saved)
            _listen(post_delete, model, _user_deleted)
    for name in ("groups", "user_permissions"):
        if field := _many_to_many(user_model, name):
            _listen(m2m_changed, field.through, _user_s_rights_changed)


def _listen(signal: Any, sender: type[Model], receiver: Any) -> None:
    signal.connect(receiver, sender=sender, dispatch_uid="livefeed.revoking")


def _many_to_many(model: type[Model], name: str) -> Any:
    descriptor = getattr(model, name, None)
    return descriptor if hasattr(descriptor, "through") else None


def _logged_out(*, request: Any, user: Any, **kwargs: Any) -> None:
    """Close what the session opened: Django sends this before the session's end, so a look would come too early."""
    if key := getattr(getattr(request, "session", None), "session_key", None):
        tell(Revocation(session=hashed("session", key), close=True))


def _user_saved(*, instance: Any, created: bool, using: str, **kwargs: Any) -> None:
    written = kwargs["update_fields"]
    if not created and (written is None or not HARMLESS.issuperset(written)):
        tell(Revocation(holder_of(instance)), using=using)


def _user_deleted(*, instance: Any, using: str, **kwargs: Any) -> None:
    tell(Revocation(holder_of(instance)), using=using)


def _user_s_rights_changed(
    *, instance: Any, action: str, reverse: bool, pk_set: set[Any] | None, using: str, **kwargs: Any
) -> None:
    """Look again at those whom a group or a permission was given to or taken from; from either end of the relation."""
    if not action.startswith("post_"):
        return
    users = [instance] if not reverse else pk_set
    for user in users if users is not None else ():
        tell(Revocation(holder_of(user)), using=using)
    if users is None:  # all of a group's users at once, and nobody says who they were
        tell(EVERYBODY, using=using)


def _rights_changed(*, using: str, action: str = "post_", **kwargs: Any) -> None:
    if action.startswith("post_"):
        tell(EVERYBODY, using=using)
