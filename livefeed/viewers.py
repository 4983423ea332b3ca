"""Who is asking, and whether they still are who they were. All of it blocks: it asks sessions and the database."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, load_backend
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare

from .conf import settings
from .topics import hashed, viewer_key


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
        if self.is_signed_in:
            return f"user:{self.user.pk}"
        if self.session_key:
            return f"session:{self.session_digest}"
        return self.address_holder

    @property
    def is_signed_in(self) -> bool:
        """Whether this is a user of the site, and not just anybody."""
        return self.user is not None and bool(self.user.is_authenticated)

    @property
    def session_digest(self) -> str:
        """What stands for the session wherever its key must not be, or ""."""
        return hashed("session", self.session_key) if self.session_key else ""

    @property
    def address_holder(self) -> str:
        """Whose limit a connection of this address counts against, for those who are not signed in."""
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


def today(viewers: Sequence[Viewer]) -> list[Viewer | None]:
    """Return these viewers as they are now; None for one who logged out, was deactivated or deleted, or has a new
    password: whoever they were, they are that no more."""
    return [_today(viewer) for viewer in viewers]


def _today(viewer: Viewer) -> Viewer | None:
    if viewer.user is None or not viewer.user.is_authenticated:
        return viewer
    user = _session_user(viewer) if viewer.by_session else _reloaded(viewer.user)
    return replace(viewer, user=user) if user is not None and user.pk == viewer.user.pk else None


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
