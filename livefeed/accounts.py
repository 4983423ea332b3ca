"""Users as they are now, many at once: by the site's authentication backends, for they say who may still come in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model, load_backend
from django.core.exceptions import ValidationError
from django.utils.crypto import constant_time_compare

from .batches import batches


def key_of(text: str) -> Any:
    """Return a user's key from its text in a session or a token; None for text that is no such key."""
    try:
        return get_user_model()._meta.pk.to_python(text)
    except ValidationError:
        return None


def session_users(sessions: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return who is signed in, by session key, as ``django.contrib.auth.get_user`` would.

    Missing are sessions of nobody, of users who are no more, and those from before a change of the password.
    """
    wanted = defaultdict(set)
    signed_in = {}
    for key, data in sessions.items():
        path = data.get(BACKEND_SESSION_KEY, "")
        if SESSION_KEY not in data or path not in django_settings.AUTHENTICATION_BACKENDS:
            continue
        pk = key_of(data[SESSION_KEY])
        if pk is not None:
            wanted[path].add(pk)
            signed_in[key] = (path, pk)
    found = {path: _users(load_backend(path), pks) for path, pks in wanted.items()}
    users = {key: found[path].get(pk) for key, (path, pk) in signed_in.items()}
    return {key: user for key, user in users.items() if user is not None and _password_holds(user, sessions[key])}


def known_users(pks: Iterable[Any]) -> dict[Any, Any]:
    """Return the active users that any backend of the site knows, by key; the first that knows one wins."""
    missing, found = set(pks), {}
    for path in django_settings.AUTHENTICATION_BACKENDS if missing else ():
        backend = load_backend(path)
        users = _users(backend, missing)
        found.update({pk: user for pk, user in users.items() if _is_active(backend, user)})
        missing -= found.keys()
    return found


def _users(backend: Any, pks: Collection[Any]) -> dict[Any, Any]:
    """Return what a backend's ``get_user()`` returns for each key: with one query for many, if it is Django's own."""
    get_user = getattr(backend, "get_user", None)
    if get_user is None:
        return {}
    if not _is_django_s(get_user):
        return {pk: user for pk in pks if (user := get_user(pk)) is not None}
    rows: Any = get_user_model()._default_manager
    users = (user for batch in batches(list(pks)) for user in rows.filter(pk__in=batch))
    return {user.pk: user for user in users if backend.user_can_authenticate(user)}


def _is_django_s(get_user: Any) -> bool:
    # By name: importing ModelBackend needs Django's own models, which a site may not have.
    names = (getattr(get_user, "__module__", ""), getattr(get_user, "__qualname__", ""))
    return names == ("django.contrib.auth.backends", "ModelBackend.get_user")


def _is_active(backend: Any, user: Any) -> bool:
    """Tell whether a backend lets a user in, for those backends whose ``get_user()`` may not have looked."""
    allows = getattr(backend, "user_can_authenticate", None)
    return bool(allows(user) if allows is not None else getattr(user, "is_active", True))


def _password_holds(user: Any, session: Mapping[str, Any]) -> bool:
    if not hasattr(user, "get_session_auth_hash"):
        return True
    known = session.get(HASH_SESSION_KEY, "")
    hashes = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    return any(constant_time_compare(known, value) for value in hashes)
