"""Who is asking, and whether they still are who they were. All of it blocks: it asks sessions and the database."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

from django.contrib.auth import SESSION_KEY
from django.db import DatabaseError
from django.http import HttpRequest
from django.utils.functional import LazyObject

from .accounts import key_of, known_users, session_users
from .addresses import address_of
from .authentication import Account, Asked, Identity, KeptRequest, ask, authenticate, nobody
from .exceptions import AuthenticationFailed
from .sessions import forget_impossible, live_key, stored_sessions
from .tokens import password_digest, password_holds
from .topics import hashed, viewer_key
from .transactions import says_that_a_database_is_away

logger = logging.getLogger("livefeed.viewers")

__all__ = ["Viewer", "address_of", "page_viewer", "today", "viewer_of"]


#: A user who is no more; None is the user of sites that have none.
_GONE: Any = object()


@dataclass(frozen=True, slots=True, repr=False)
class Viewer:
    """Whoever opened a stream: a user, a session, or somebody at an address.

    ``by_session``: the user is who the session says, so that the end of the session is theirs. ``scope``: the topics
    that a token opens at most; None where no token restricts. ``proof``: what is needed to ask again who it is.
    ``key``: for whom names are signed. ``session_digest``: what stands for the session wherever its key must not be,
    or "". Both are asked for again and again, and worked out once.
    """

    user: Any
    session_key: str | None
    address: str
    by_session: bool = False
    scope: frozenset[str] | None = None
    proof: Account | Asked | None = None
    key: str = field(init=False, compare=False)
    session_digest: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", viewer_key(self.user, self.session_key))
        object.__setattr__(self, "session_digest", hashed("session", self.session_key) if self.session_key else "")

    @property
    def digest(self) -> str:
        """Who it is, for the browser: tabs share a connection only under one digest. Each user has one of their own;
        guests have one together, for a page may be the first to give its guest a session, or be kept in a cache for
        them all, and what is signed for one session is refused to another here."""
        return hashed("viewer", viewer_key(self.user, None))

    @property
    def credential(self) -> tuple[Any, ...]:
        """What tells viewers apart when it is looked at again who they are. It holds secrets: never show it."""
        return (self.key, self.session_key, self.by_session, self.scope, self.proof)

    @property
    def person(self) -> tuple[Any, ...]:
        """For whom one answer of a rule holds: a user, however many sessions they have; but whom an authenticator of
        the site's named is who they are by what they showed, since two keys of one user may open different things."""
        return (self.key, self.proof if isinstance(self.proof, Asked) else None)

    @property
    def is_user(self) -> bool:
        """Whether it is somebody, and not anybody."""
        return bool(self.user is not None and self.user.is_authenticated)

    @property
    def holder(self) -> str:
        """Whose limit a connection counts against: the user's, else the session's, else the address's."""
        if self.is_user:
            return self.key
        if self.session_key:
            return f"session:{self.session_digest}"
        return self.address_holder

    @property
    def address_holder(self) -> str:
        """Whose limit a connection of this address counts against, for those who are not signed in."""
        return f"address:{hashed('address', self.address)}"

    def __repr__(self) -> str:
        return f"<Viewer {self.holder}>"


def viewer_of(request: HttpRequest) -> Viewer:
    """Return who sent a request, by LIVEFEED_AUTHENTICATION.

    Raises :exc:`AuthenticationFailed` for credentials that don't hold.
    """
    forget_impossible(request)
    identity = authenticate(request)
    if identity is None:
        return _anonymous(request)
    user = copy(identity.user) if isinstance(identity.user, LazyObject) else identity.user  # it holds the request
    if isinstance(identity.proof, Account) and identity.proof.expires_at is not None:  # a token stands for itself
        return Viewer(user, None, address_of(request), False, identity.scope, identity.proof)
    session_key = _session_key(request)
    by_session = identity.by_django and session_key is not None and _is_session_s(request, user)
    proof = Account(password_digest(user)) if identity.by_django and not by_session else identity.proof
    return Viewer(user, session_key, address_of(request), by_session, identity.scope, proof)


def page_viewer(request: HttpRequest) -> Viewer:
    """As :func:`viewer_of`, for a page: it is rendered for anybody where credentials do not hold."""
    try:
        return viewer_of(request)
    except AuthenticationFailed:
        return _anonymous(request)


def _anonymous(request: HttpRequest) -> Viewer:
    return Viewer(nobody(), _session_key(request), address_of(request))


def _session_key(request: HttpRequest) -> str | None:
    session = getattr(request, "session", None)
    return None if session is None else live_key(session)


def _is_session_s(request: HttpRequest, user: Any) -> bool:
    text = request.session.get(SESSION_KEY)
    return text is not None and key_of(text) == user.pk


# -- later ------------------------------------------------------------------------------------------------------------


def today(viewers: Sequence[Viewer]) -> list[Viewer | None]:
    """Return these viewers as they are now; None for those who are that no more.

    That is: who logged out, was deactivated or deleted, or has a new password; whose session or token expired; whom
    an authenticator of the site's knows no more. Sessions and users are read many at once, and a session is never
    prolonged by it. Raises what the database raises that can't be asked: then nobody knows.
    """
    now = _Now(viewers)
    return [now.as_it_is(viewer) for viewer in viewers]


class _Now:
    """What is known today of viewers, read for all of them together."""

    def __init__(self, viewers: Sequence[Viewer]) -> None:
        self.sessions = stored_sessions(viewer.session_key for viewer in viewers if viewer.session_key)
        self.signed_in = session_users(self.sessions)
        self.known = known_users(viewer.user.pk for viewer in viewers if _is_looked_up(viewer))
        self.answers: dict[tuple[Asked, str | None], Any] = {}

    def as_it_is(self, viewer: Viewer) -> Viewer | None:
        """Return a viewer with the user that it is now; None if that is somebody else, or nobody any more."""
        if isinstance(viewer.proof, Account) and viewer.proof.has_expired():
            return None
        if isinstance(viewer.proof, Asked):
            user = self._asked(viewer.proof, viewer.session_key)
        elif viewer.is_user:
            user = self._user(viewer)
        else:
            gone = viewer.session_key and viewer.session_key not in self.sessions
            user = _GONE if gone else viewer.user
        now = None if user is _GONE else replace(viewer, user=user)
        return now if now is not None and now.key == viewer.key else None  # a key says of which model the user is

    def _user(self, viewer: Viewer) -> Any:
        if viewer.by_session:
            return self.signed_in.get(viewer.session_key or "", _GONE)
        if viewer.session_key and viewer.session_key not in self.sessions:
            return _GONE  # a middleware may have named the user because of something in the session
        user = self.known.get(viewer.user.pk, _GONE)
        if user is not _GONE and isinstance(viewer.proof, Account) and not password_holds(user, viewer.proof.password):
            return _GONE
        return user

    def _asked(self, proof: Asked, session_key: str | None) -> Any:
        """Ask an authenticator of the site's again, once for all streams that showed it the same."""
        if (proof, session_key) not in self.answers:
            session = self.sessions.get(session_key or "", {})
            request = KeptRequest(proof, session, self.signed_in.get(session_key or "") or nobody())
            identity = _asked_again(proof.path, request)
            self.answers[proof, session_key] = _GONE if identity is None else identity.user
        return self.answers[proof, session_key]


def _asked_again(path: str, request: KeptRequest) -> Identity | None:
    """Ask an authenticator once more. One that its database does not answer spares no other stream the look, but where
    that database is away, nobody knows."""
    try:
        return ask(path, request)
    except AuthenticationFailed:
        return None
    except DatabaseError as error:
        if says_that_a_database_is_away(error):
            raise
        logger.error("%s failed with %s at a look at an open stream, which ends.", path, type(error).__name__)
        return None


def _is_looked_up(viewer: Viewer) -> bool:
    return viewer.is_user and not viewer.by_session and not isinstance(viewer.proof, Asked)
