"""Who is asking, what they may read, and whether that still holds. Closed: what no rule opens is refused.

Everything here blocks (rules ask the database) and runs in a request's or a pool's thread.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple

from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, load_backend
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare

from .conf import settings
from .registry import registry
from .topics import hashed, is_signed, plain_name, signature_holds, viewer_key

logger = logging.getLogger("livefeed.access")


@dataclass(frozen=True, slots=True)
class Viewer:
    """Whoever opened a stream: a user, a session, or somebody at an address."""

    user: Any
    session_key: str | None
    address: str
    #: Whether the user is who the session says, so that the end of the session is theirs.
    by_session: bool = field(default=False)

    @property
    def key(self) -> str:
        """For whom names are signed."""
        return viewer_key(self.user, self.session_key)

    @property
    def holder(self) -> str:
        """Whose limit a connection counts against: the user's, else the session's, else the address's."""
        if self.user is not None and self.user.is_authenticated:
            return f"user:{self.user.pk}"
        if self.session_key:
            return f"session:{hashed('session', self.session_key)}"
        return f"address:{hashed('address', self.address)}"


def viewer_of(request: HttpRequest) -> Viewer:
    """Return who sent a request, by Django's authentication."""
    user = getattr(request, "user", None)
    signed_in = user is not None and user.is_authenticated  # this loads the session; an unknown key becomes None
    user = copy(user)  # out of Django's lazy object, which holds the request
    session: Any = getattr(request, "session", None)
    by_session = signed_in and session is not None and session.get(SESSION_KEY) is not None
    return Viewer(user, session.session_key if session is not None else None, address_of(request), by_session)


def address_of(request: HttpRequest) -> str:
    """Return the client's address: the peer's, or the one that our own proxies report (LIVEFEED_TRUSTED_PROXIES)."""
    hops = [hop.strip() for hop in request.headers.get("X-Forwarded-For", "").split(",") if hop.strip()]
    trusted = settings.TRUSTED_PROXIES
    if trusted and hops:
        return hops[-min(trusted, len(hops))]
    return str(request.META.get("REMOTE_ADDR") or "unknown")


class Grant(NamedTuple):
    """What became of the names a client asked for: the topics it may read, under the names it sent, and the others."""

    names: dict[str, str]
    refused: list[str]


def grant(viewer: Viewer, names: Iterable[str]) -> Grant:
    """Decide on each name: a feed's rule is always asked; a topic that no feed owns needs the viewer's signature."""
    granted: dict[str, str] = {}
    refused: list[str] = []
    for name in names:
        topic = plain_name(name)
        if topic in granted:
            continue
        if _opened(viewer, topic, name):
            granted[topic] = name
        else:
            refused.append(name)
    return Grant(granted, refused)


def _opened(viewer: Viewer, topic: str, name: str) -> bool:
    if registry.owner(topic) is not None:
        return may_read(viewer.user, topic)
    return is_signed(name) and signature_holds(name, viewer.key)


def may_read(user: Any, topic: str) -> bool:
    """Ask the rule of the feed that owns a topic. A rule that fails opens nothing."""
    feed = registry.owner(topic)
    if feed is None:
        return False
    try:
        answer = feed.has_view_permission(user, topic)
        if inspect.isawaitable(answer):
            answer = async_to_sync(_awaited)(answer)
    except Exception:
        logger.exception("%s.has_view_permission failed for %s; it is refused.", type(feed).__name__, topic)
        return False
    return bool(answer)


async def _awaited(answer: Any) -> Any:
    return await answer


def revoked(streams: Sequence[tuple[Viewer, dict[str, str]]]) -> list[int]:
    """Return which of these streams (who, and which names) lost a right that they were opened with, by index."""
    users: dict[tuple[str, str | None], Any] = {}
    rules: dict[tuple[str, str], bool] = {}
    lost = []
    for index, (viewer, names) in enumerate(streams):
        who = (viewer.key, viewer.session_key)
        if who not in users:
            users[who] = _today(viewer)
        today = users[who]
        for topic, name in names.items():
            rule = (name if registry.owner(topic) is None else topic, today.key)
            if rule not in rules:
                rules[rule] = today.key == viewer.key and _opened(today, topic, name)
            if not rules[rule] or today.key != viewer.key:
                lost.append(index)
                break
    return lost


def _today(viewer: Viewer) -> Viewer:
    """Return the viewer as they are now: logged out, deactivated, deleted or with a new password means nobody."""
    if viewer.user is None or not viewer.user.is_authenticated:
        return viewer
    user = _session_user(viewer) if viewer.by_session else _reloaded(viewer.user)
    return (
        Viewer(user, None, viewer.address) if user is None else Viewer(user, viewer.session_key, viewer.address, True)
    )


def _reloaded(user: Any) -> Any:
    fresh = type(user)._base_manager.filter(pk=user.pk).first()
    return fresh if fresh is not None and getattr(fresh, "is_active", True) else None


def _session_user(viewer: Viewer) -> Any:
    """Return the session's user, as ``django.contrib.auth.get_user`` would, but never touching the session."""
    session = import_module(django_settings.SESSION_ENGINE).SessionStore(viewer.session_key)
    path = session.get(BACKEND_SESSION_KEY)
    if session.get(SESSION_KEY) is None or path not in django_settings.AUTHENTICATION_BACKENDS:
        return None
    user: Any = load_backend(path).get_user(viewer.user._meta.pk.to_python(session[SESSION_KEY]))
    if user is None or not hasattr(user, "get_session_auth_hash"):
        return user
    hashes = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    known = session.get(HASH_SESSION_KEY, "")
    return user if any(constant_time_compare(known, value) for value in hashes) else None
