"""How a request says who sends it: the authenticators that ``LIVEFEED_AUTHENTICATION`` lists.

Each is a callable that takes the request and returns a user, or None where it knows nothing of whom the request is; or
an authentication class of Django REST framework. The first that answers wins. Credentials that were sent and don't
hold are an :exc:`AuthenticationFailed`, not an anonymous client. All of it blocks.

An open stream outlives its request, so what is needed to ask again is kept as a *proof*, the smallest there is.
"""

from __future__ import annotations

import inspect
import logging
import sys
import time
import traceback
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from asgiref.sync import async_to_sync
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db import Error as DatabaseError
from django.http import HttpRequest, QueryDict, parse_cookie
from django.utils.functional import LazyObject
from django.utils.module_loading import import_string

from .accounts import key_of, known_users
from .conf import settings
from .exceptions import AuthenticationFailed
from .tokens import Token, password_holds, read_token

logger = logging.getLogger("livefeed.authentication")

#: Besides the headers, what an authenticator may want to see of a request when it is asked again.
KEPT = {"REMOTE_ADDR", "REMOTE_USER", "QUERY_STRING", "SERVER_NAME", "SERVER_PORT", "SCRIPT_NAME"}
#: Headers by which nobody is known, and that browsers send with each request.
NOT_KEPT = {
    *("HTTP_ACCEPT", "HTTP_ACCEPT_ENCODING", "HTTP_ACCEPT_LANGUAGE", "HTTP_CACHE_CONTROL", "HTTP_CONNECTION"),
    *("HTTP_DNT", "HTTP_LAST_EVENT_ID", "HTTP_PRAGMA", "HTTP_PRIORITY", "HTTP_REFERER", "HTTP_TE"),
    "HTTP_UPGRADE_INSECURE_REQUESTS",
}


@dataclass(frozen=True, slots=True)
class Account:
    """Proof of a user whom a middleware or a token named: they are who they were while their password is the same.

    A token's also expires (Unix time).
    """

    password: str = field(repr=False)
    expires_at: float | None = None

    def has_expired(self) -> bool:
        """Tell whether a token's time is over."""
        return self.expires_at is not None and self.expires_at <= time.time()


@dataclass(frozen=True, slots=True)
class Asked:
    """Proof of whom an authenticator of the site's named: it is asked again with what is kept of the request."""

    path: str
    scheme: str
    url: str
    meta: tuple[tuple[str, str], ...] = field(repr=False)


class Identity(NamedTuple):
    """Who an authenticator says it is. ``scope``: the most that they may read, by what they showed; None: anything.

    ``by_django``: it is whom Django's own authentication knows, so that their session may be all the proof there is.
    """

    user: Any
    scope: frozenset[str] | None = None
    proof: Account | Asked | None = None
    by_django: bool = False


def token(request: HttpRequest) -> Identity | None:
    """Know the bearer of one of livefeed's own tokens; leave other ``Authorization`` headers to others."""
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    found = read_token(text.strip()) if scheme.lower() == "bearer" else None
    if found is None:
        return None
    user = nobody() if found.user_id is None else _user_of(found)
    return Identity(user, found.topics, Account(found.password, found.expires_at))


def _user_of(found: Token) -> Any:
    pk = key_of(found.user_id or "")
    user = known_users([pk]).get(pk) if pk is not None else None
    if user is None or not password_holds(user, found.password):
        raise AuthenticationFailed("The token's user is no more, or has a new password.")
    return user


def session(request: HttpRequest) -> Identity | None:
    """Know whom Django's own authentication knows: ``request.user``, by the session or by a middleware of the site."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return None
    return Identity(user, by_django=True)


def authenticate(request: HttpRequest) -> Identity | None:
    """Return who sent a request, by the first authenticator that knows; None if none does.

    Raises :exc:`AuthenticationFailed` for credentials that don't hold.
    """
    for path in settings.AUTHENTICATION:
        identity = ask(path, request)
        if identity is not None:
            return identity
    return None


def ask(path: str, request: HttpRequest) -> Identity | None:
    """Ask one authenticator. One that fails lets nobody in, and is logged without what it was about."""
    authenticator = load(path)
    try:
        answer = authenticator(request)
        if inspect.isawaitable(answer):
            answer = async_to_sync(_awaited)(answer)
        return _identity(answer, path, request)
    except (AuthenticationFailed, DatabaseError):
        raise
    except PermissionDenied:
        raise AuthenticationFailed from None
    except Exception as error:
        place = traceback.extract_tb(sys.exc_info()[2])[-1]
        logger.error("%s failed with %s (%s:%s).", path, type(error).__name__, place.filename, place.lineno)
        raise AuthenticationFailed("These credentials could not be checked.") from None


async def _awaited(answer: Any) -> Any:
    return await answer


def _identity(answer: Any, path: str, request: HttpRequest) -> Identity | None:
    if answer is None:
        return None
    if isinstance(answer, Identity) and load(path) in (token, session):
        return answer
    if isinstance(answer, Identity):  # a callable of the site's has asked one of ours: it has the word, now and later
        return answer._replace(proof=answer.proof or kept(path, request), by_django=False)
    user = copy(answer) if isinstance(answer, LazyObject) else answer  # a lazy user holds the request
    if user.is_authenticated and user.pk is None:
        raise TypeError("A user has a key.")
    return Identity(user, None, kept(path, request))


def kept(path: str, request: HttpRequest) -> Asked:
    """Return what is kept of a request to ask an authenticator again: headers and query, no body and no connection."""
    names = (name for name in request.META if name in KEPT or name.startswith("HTTP_"))
    wanted = (name for name in names if name not in NOT_KEPT and not name.startswith("HTTP_SEC_"))
    meta = tuple((sys.intern(name), value) for name in wanted if isinstance(value := request.META[name], str))
    return Asked(path, request.scheme or "http", request.path, meta)


class KeptRequest(HttpRequest):
    """A request as it was, as far as it was kept; ``session`` (a dict) and ``user`` are those of today."""

    session: Any

    def __init__(self, asked: Asked, session: dict[str, Any], user: Any) -> None:
        super().__init__()
        self.method = "GET"
        self.path = self.path_info = asked.url
        self.META = dict(asked.meta)
        self.GET = QueryDict(self.META.get("QUERY_STRING", ""))
        self.COOKIES = parse_cookie(self.META.get("HTTP_COOKIE", ""))
        self.session, self.user = session, user
        self._kept_scheme = asked.scheme

    def _get_scheme(self) -> str:
        return self._kept_scheme


def nobody() -> Any:
    """Return Django's anonymous user; None on a site that has no users."""
    return import_string("django.contrib.auth.models.AnonymousUser")() if _has_users() else None


def _has_users() -> bool:
    return apps.is_installed("django.contrib.auth")


# -- what the setting names -------------------------------------------------------------------------------------------


@cache
def load(path: str) -> Callable[[HttpRequest], Any]:
    """Return the authenticator that a dotted path names. Raises ImproperlyConfigured where there is none."""
    try:
        found = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(
            f"LIVEFEED_AUTHENTICATION names {path!r}, which can't be imported: {error}"
        ) from error
    if inspect.isclass(found) and hasattr(found, "authenticate") and hasattr(found, "authenticate_header"):
        return _of_rest_framework(found)
    if inspect.isclass(found) or not callable(found):
        raise ImproperlyConfigured(
            f"LIVEFEED_AUTHENTICATION names {path!r}, which is neither a callable (request) -> user | None nor an "
            "authentication class of Django REST framework."
        )
    return found  # type: ignore[no-any-return]


def _of_rest_framework(authentication: Any) -> Callable[[HttpRequest], Any]:
    """Make an authenticator of an authentication class of Django REST framework."""
    try:
        request_class = import_string("rest_framework.request.Request")
        error_class = import_string("rest_framework.exceptions.APIException")
    except ImportError as error:
        raise ImproperlyConfigured(
            f"LIVEFEED_AUTHENTICATION names {authentication.__qualname__}, a class for Django REST framework, which "
            f"can't be imported: {error}"
        ) from error

    def ask_it(request: HttpRequest) -> Any:
        asked, wrapped = authentication(), request_class(request)
        try:
            answer = asked.authenticate(wrapped)
        except error_class as error:
            if error.status_code not in {401, 403}:
                raise
            challenge = asked.authenticate_header(wrapped)
            details = (str(error.detail), challenge) if challenge else (str(error.detail),)
            raise AuthenticationFailed(*details) from None
        if answer is None:
            return None
        return nobody() if answer[0] is None else answer[0]

    return ask_it
