"""Tokens that a client sends as ``Authorization: Bearer livefeed_…``: signed, for one user or for nobody in particular,
until a moment that they name themselves.

A token is a password to what it opens: it stands in no error and in no log. Its characters are those of RFC 6750,
section 2.1. It holds a digest of what Django's sessions hold of the password, so that a new password ends it.
"""

from __future__ import annotations

import hmac
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.conf import settings as django_settings
from django.core import signing
from django.utils.crypto import salted_hmac

from .conf import MOST_SECONDS, settings
from .exceptions import AuthenticationFailed, InvalidToken
from .topics import shortened, validate_topic

PREFIX = "livefeed_"
#: Characters of the longest token: nginx and others take header lines up to 8 KiB.
MAX_LENGTH = 7_500
_SALT = "livefeed.token"


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says: whose it is (the user's key as text), the most it opens, and until when (Unix time)."""

    user_id: str | None
    topics: frozenset[str] | None
    expires_at: float
    password: str = field(repr=False)


def create_token(user: Any, topics: Iterable[str] | None = None, *, max_age: float | timedelta) -> str:
    """Make a token with which a client reads in the name of a user: ``Authorization: Bearer <token>``.

    ``user`` None makes a token for nobody in particular, which needs ``topics``. Without ``topics`` it opens whatever
    the rules open to the user; with them at most these: where a feed owns the topic its rule is asked too, where none
    does the token is enough. ``max_age`` is in seconds, or a timedelta. A new password, deactivation and deletion of
    the user end the token earlier. Raises :exc:`InvalidToken` for what no token can be made of, :exc:`InvalidTopic`
    for a name that is none.
    """
    if user is None and topics is None:
        raise InvalidToken("A token for nobody opens nothing without topics. Name topics, or a user.")
    content: dict[str, Any] = {"e": round(time.time() + _seconds(max_age), 3)}
    if user is not None:
        content |= {"u": _user_id(user), "p": password_digest(user)}
    if topics is not None:
        content["t"] = _names(topics)
    text: str = PREFIX + _signer().sign_object(content, compress=True)
    if len(text) > MAX_LENGTH:
        raise InvalidToken(
            f"A token for these {len(content.get('t', ()))} topics has {len(text)} characters; servers take headers of "
            f"up to {MAX_LENGTH}. Make it for fewer topics."
        )
    return text


def read_token(text: str) -> Token | None:
    """Return what a token says; None for text that is no token of livefeed's, such as another application's.

    Raises :exc:`AuthenticationFailed` for one that was spoiled or has expired. Whether its user is still there, and has
    still the password, is not looked at.
    """
    if not text.startswith(PREFIX):
        return None
    try:
        content = _signer().unsign_object(text.removeprefix(PREFIX))
    except Exception:  # a signature that does not hold; what is signed with the same key, but is something else
        raise AuthenticationFailed("The token is not one that this site made.") from None
    if content["e"] <= time.time():
        raise AuthenticationFailed("The token has expired.")
    topics = frozenset(content["t"]) if "t" in content else None
    return Token(content.get("u"), topics, content["e"], content.get("p", ""))


def password_digest(user: Any) -> str:
    """Return a digest of a user's password, as Django's sessions know it; "" for users that have none."""
    return next(_digests(user), "")


def password_holds(user: Any, digest: str) -> bool:
    """Tell whether a user's password is still the one of a digest; SECRET_KEY_FALLBACKS count."""
    candidates = list(_digests(user)) or [""]
    return any(hmac.compare_digest(digest, candidate) for candidate in candidates)


def _digests(user: Any) -> Iterator[str]:
    """Yield the digests that are right for a user: the one of today's SECRET_KEY, then those of the older keys."""
    if not hasattr(user, "get_session_auth_hash"):
        return
    hashes = [user.get_session_auth_hash()]
    if hasattr(user, "get_session_auth_fallback_hash"):
        hashes += user.get_session_auth_fallback_hash()
    for secret in [django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS]:
        for value in hashes:
            yield salted_hmac(f"{_SALT}.password", value, secret=secret, algorithm="sha256").hexdigest()[:32]


def _signer() -> signing.Signer:
    return signing.Signer(sep=".", salt=_SALT)


def _seconds(max_age: float | timedelta) -> float:
    seconds: Any = max_age.total_seconds() if isinstance(max_age, timedelta) else max_age
    usable = isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and not math.isnan(seconds)
    if not usable or not 0 < seconds <= MOST_SECONDS:
        raise InvalidToken(
            f"max_age is {shortened(max_age)}. Use seconds, or a timedelta: more than 0, at most {MOST_SECONDS:.0f}."
        )
    return float(seconds)


def _user_id(user: Any) -> str:
    if not getattr(user, "is_authenticated", False) or getattr(user, "pk", None) is None:
        raise InvalidToken(f"{shortened(user)} is no user that was saved. Give one, or None and topics.")
    key = getattr(getattr(user, "_meta", None), "pk", None)
    return str(user.pk) if key is None else str(key.value_to_string(user))


def _names(topics: Iterable[str]) -> list[str]:
    if isinstance(topics, (str, bytes)):
        raise InvalidToken(f"topics is the text {shortened(topics)}. Use a list of names.")
    names = sorted({validate_topic(topic) for topic in topics})
    if not names:
        raise InvalidToken("A token for no topics opens nothing. Name at least one, or leave topics out.")
    if len(names) > settings.MAX_TOPICS:
        raise InvalidToken(f"{len(names)} topics are too many; LIVEFEED_MAX_TOPICS allows {settings.MAX_TOPICS}.")
    return names
