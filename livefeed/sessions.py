"""Stored sessions, many at once, and only looked at: nothing here touches, saves or prolongs one.

What Django's engines do when a session is loaded is done here in batches; any other engine is asked one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from typing import Any

from django.conf import settings as django_settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends import cache as cached
from django.contrib.sessions.backends import cached_db, db, signed_cookies
from django.core.cache import caches
from django.http import HttpRequest
from django.utils import timezone

from .batches import batches

Data = dict[str, Any]


def forget_impossible(request: HttpRequest) -> None:
    """Give a request whose cookie can be no session's key an empty session: PostgreSQL can't be asked for a NUL."""
    session: Any = getattr(request, "session", None)
    if "\0" in (getattr(session, "session_key", None) or ""):
        request.session = type(session)()


def live_key(session: Any) -> str | None:
    """Return the key of a request's session if there is such a session; None for a cookie that somebody made up."""
    session.get(SESSION_KEY)  # this loads the session; an unknown key becomes None
    key: str | None = session.session_key
    if key and isinstance(session, signed_cookies.SessionStore) and not stored_sessions([key]):
        return None
    return key or None


def stored_sessions(keys: Iterable[str]) -> dict[str, Data]:
    """Return the data of the sessions that are there and have not expired, by key.

    Raises what the database or the cache raises that holds them.
    """
    wanted = sorted(set(keys))
    if not wanted:
        return {}
    engine = import_module(django_settings.SESSION_ENGINE).SessionStore
    if engine.load is cached.SessionStore.load:
        return dict(_from_cache(engine, wanted))
    if engine.load is cached_db.SessionStore.load:
        found = dict(_from_cache_if_there(engine, wanted))
        return found | dict(_from_database(engine, [key for key in wanted if key not in found]))
    if engine.load is db.SessionStore.load:
        return dict(_from_database(engine, wanted))
    return dict(_one_by_one(engine, wanted))


def _from_database(engine: Any, keys: list[str]) -> Iterator[tuple[str, Data]]:
    store = engine()
    for batch in batches(keys):
        rows = store.model.objects.filter(session_key__in=batch, expire_date__gt=timezone.now())
        for key, data in rows.values_list("session_key", "session_data"):
            yield key, store.decode(data)


def _from_cache(engine: Any, keys: list[str]) -> Iterator[tuple[str, Data]]:
    prefix = engine.cache_key_prefix
    for batch in batches(keys):
        found = caches[django_settings.SESSION_CACHE_ALIAS].get_many([prefix + key for key in batch])
        for key, data in found.items():
            yield key.removeprefix(prefix), data


def _from_cache_if_there(engine: Any, keys: list[str]) -> Iterator[tuple[str, Data]]:
    try:
        yield from _from_cache(engine, keys)
    except Exception:  # as Django does: the database has them too
        return


def _one_by_one(engine: Any, keys: list[str]) -> Iterator[tuple[str, Data]]:
    for key in keys:
        store = _looking_only(engine)(key)
        data = store.load()
        if store.session_key is not None:
            yield key, data


@cache
def _looking_only(engine: Any) -> Any:
    """Return an engine that takes a session which can't be loaded for none, where Django's would begin a new one."""

    def lose(self: Any) -> None:
        self._session_key = None

    def nothing(self: Any, *args: Any, **kwargs: Any) -> None:
        pass

    return type(engine.__name__, (engine,), {"create": lose, "save": nothing, "delete": nothing})
