"""Names of topics: the rule for them, whose they are, and names signed for one viewer.

A signed name is ``topic~timestamp~signature``. It is good for one viewer (see :func:`viewer_key`) and for
``LIVEFEED_SIGNATURE_SECONDS``; in anyone else's hands it is worth nothing.
"""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core import signing
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model
from django.utils.crypto import salted_hmac

from .conf import settings
from .exceptions import InvalidTopic

MAX_LENGTH = 200
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,200}")
_SEPARATOR = "~"
_SIMPLE = re.compile(r"[A-Za-z0-9_-]{1,64}")


def validate_topic(topic: object) -> str:
    """Return the topic if its name may be used, else raise :exc:`InvalidTopic`."""
    if isinstance(topic, str) and _NAME.fullmatch(topic) and not topic.startswith(":"):
        return topic
    raise InvalidTopic(
        f"{shortened(topic)} is not a topic name. Use 1 to {MAX_LENGTH} letters, digits and "
        f'"._:-", not beginning with ":".'
    )


def shortened(value: object) -> str:
    """Return a value as error messages show it: its repr, cut where it is long."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:97]}…"


def prefix(topic: str) -> str:
    """Return the part of the name that says which feed owns it: ``"news.article"`` of ``"news.article:7"``."""
    return topic.partition(":")[0]


def viewer_key(user: Any, session_key: str | None) -> str:
    """Return who looks: the user, else the session, else anybody who is not signed in. ASCII, at most 200 characters.

    Users of another model than AUTH_USER_MODEL, as an authenticator of the site's may know them, are others.
    """
    if user is not None and user.is_authenticated:
        return f"user:{_kind(user)}{_simple(str(user.pk))}"
    return f"session:{_simple(session_key)}" if session_key else "anonymous"


def _kind(user: Any) -> str:
    concrete = user._meta.concrete_model if isinstance(user, Model) else None
    label = concrete._meta.label_lower if concrete is not None else ""
    try:
        return "" if not label or isinstance(user, get_user_model()) else f"{label[-100:]}/"
    except ImproperlyConfigured:  # a site without users of Django's
        return f"{label[-100:]}/"


def _simple(key: str) -> str:
    """Return a key as it is, or a digest of one that is long or has other characters (an e-mail address, a signed
    cookie). No key is a digest, for the digest's first character is in none. SECRET_KEY is not in it, so that names
    that were signed before it was changed still hold."""
    return key if _SIMPLE.fullmatch(key) else f"~{hashlib.sha256(key.encode(errors='surrogatepass')).hexdigest()}"


def topic_holder(topic: str) -> str:
    """Return the name under which connections count against a topic's limit."""
    return f"topic:{topic if len(topic) <= 100 else hashed('topic', topic)}"


def sign_topic(topic: str, viewer: str) -> str:
    """Sign a topic's name for one viewer: whoever the key names may read the topic until the signature expires."""
    return _signer(viewer).sign(validate_topic(topic))


def is_signed(name: str) -> bool:
    """Tell whether a name claims to be signed."""
    return _SEPARATOR in name


def plain_name(name: str) -> str:
    """Return the topic that a signed or open name is about, without asking whether the signature holds."""
    return name.partition(_SEPARATOR)[0]


def signature_holds(name: str, viewer: str) -> bool:
    """Tell whether a signed name was signed by us, for this viewer, and has not expired."""
    try:
        _signer(viewer).unsign(name, max_age=timedelta(seconds=settings.SIGNATURE_SECONDS))
    except (signing.BadSignature, UnicodeEncodeError):  # what is no Unicode was not signed by us
        return False
    return True


def _signer(viewer: str) -> signing.TimestampSigner:
    return signing.TimestampSigner(sep=_SEPARATOR, salt=f"livefeed.topic.{viewer}")


def hashed(purpose: str, value: str) -> str:
    """Return a keyed digest, for storing what must be compared but never read (session keys, addresses)."""
    return salted_hmac(f"livefeed.{purpose}", value, algorithm="sha256").hexdigest()[:32]
