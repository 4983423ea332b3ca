"""What ``manage.py check`` says about a site's feeds and settings, each with a hint at the cure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router
from django.urls import NoReverseMatch, reverse
from django.utils.module_loading import import_string

from .asgi import Wrapped
from .authentication import load
from .conf import MOST, MOST_SECONDS, Settings, settings
from .feeds import LiveFeed
from .history import get_history
from .leases import get_leases
from .origins import origin_problem
from .registry import registry
from .values import resolves

#: The backends that need a Redis, and what each is.
IN_REDIS = {
    "livefeed.history.redis.RedisHistory": "The history is",
    "livefeed.leases.redis.RedisLeases": "The leases are",
}


@register("livefeed")
def check_feeds(**kwargs: Any) -> list[CheckMessage]:
    """Look at every registered feed."""
    clashes = [
        Error(
            f"Two feeds own the topics {feed.name!r}: {_class(registry.owner(feed.name))} and {_class(feed)}.",
            hint="Give one of them another `name`.",
            obj=type(feed),
            id="livefeed.E001",
        )
        for feed in registry.clashes
    ]
    return [
        *clashes,
        *(message for feed in registry for message in _check_feed(feed)),
        *(message for feed in registry for message in _check_retention(feed)),
        *(message for feed in registry if feed.html for message in _check_html(feed)),
    ]


def _class(feed: LiveFeed | None) -> str:
    return f"{type(feed).__module__}.{type(feed).__qualname__}"


def _check_feed(feed: LiveFeed) -> Iterator[CheckMessage]:
    if feed.model is None:
        return
    if isinstance(feed.fields, str) and feed.fields != "__all__":
        yield Error(
            f"`fields` of {_class(feed)} is the string {feed.fields!r}.",
            hint=f'Use a list: fields = ["{feed.fields}"], or "__all__" for every column.',
            obj=type(feed),
            id="livefeed.E002",
        )
        return
    if not feed.fields and not feed.overrides("get_data"):
        yield Error(
            f"{_class(feed)} names no `fields`, so its events would be empty.",
            hint='List what may leave the server, e.g. fields = ["title"]; or override get_data().',
            obj=type(feed),
            id="livefeed.E003",
        )
    for name in feed.field_names:
        if not resolves(feed.model, name):
            yield Error(
                f"`fields` of {_class(feed)} names {name!r}, which {feed.model._meta.label} does not have.",
                hint="Use a column, a path such as author__name, or an attribute or method of the model.",
                obj=type(feed),
                id="livefeed.E004",
            )
    if feed.overrides("get_topics") and not feed.overrides("get_queryset"):
        yield Warning(
            f"{_class(feed)} has topics of its own, but no get_queryset(topic).",
            hint="The widget can't tell which items such a topic begins with; override get_queryset(topic).",
            obj=type(feed),
            id="livefeed.W005",
        )


def _check_retention(feed: LiveFeed) -> Iterator[CheckMessage]:
    limits = {
        "retention": (feed.retention, float, "seconds"),
        "retention_events": (feed.retention_events, int, "events"),
    }
    wrong = [
        Error(
            f"`{name}` of {_class(feed)} is {value!r}.",
            hint=f"Use a number of {unit}, 0 for no limit, or None for the setting.",
            obj=type(feed),
            id="livefeed.E006",
        )
        for name, (value, type_, unit) in limits.items()
        if value is not None and not _is_limit(value, type_)
    ]
    yield from wrong
    own = (feed.retention, feed.retention_events) != (None, None)
    if own and not wrong and registry.retention(feed.name) == (0, 0):
        yield Warning(
            f"{_class(feed)} keeps every event for ever.",
            hint="Set `retention` (seconds) or `retention_events` to more than 0, or silence this check.",
            obj=type(feed),
            id="livefeed.W007",
        )


def _is_limit(value: Any, type_: type) -> bool:
    usable = isinstance(value, (int, type_)) and not isinstance(value, bool)
    return usable and 0 <= value <= (MOST if type_ is int else MOST_SECONDS)


def _check_html(feed: LiveFeed) -> Iterator[CheckMessage]:
    if feed.model is None:
        yield Error(
            f"{_class(feed)} has `html = True` and no model, so there is nothing that its template could render.",
            hint='Publish the HTML by hand: publish(topic, {"pk": …, "html": …}, type="created"); or set a `model`.',
            obj=type(feed),
            id="livefeed.E008",
        )
    if feed.is_personal:
        yield Error(
            f"{_class(feed)} has `html = True` and get_data_for(): its items are rendered once for all viewers.",
            hint="Take one of them away, or give the viewers who see something else a feed of their own.",
            obj=type(feed),
            id="livefeed.E009",
        )
    if not feed.event_names:
        yield Warning(
            f"{_class(feed)} has `html = True` and `event_names = False`: its list can't tell what an event means.",
            hint="Leave event_names as it is; for htmx or Turbo publish HTML alone, as text, from a feed of its own.",
            obj=type(feed),
            id="livefeed.W024",
        )


@register("livefeed")
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Look at the LIVEFEED_* settings."""
    declared = {setting.name for setting in Settings.declared()}
    errors: list[CheckMessage] = [
        Error(text, hint="See docs/settings.md.", id="livefeed.E010")
        for text in filter(None, (setting.error() for setting in Settings.declared()))
    ]
    if not errors:
        errors += [*_check_backends(), *_check_authentication()]
        if not settings.RETENTION and not settings.RETENTION_EVENTS:
            errors.append(
                Warning(
                    "LIVEFEED_RETENTION and LIVEFEED_RETENTION_EVENTS are both 0: events are kept for ever.",
                    hint="Set one of them, or silence this check.",
                    id="livefeed.W016",
                )
            )
    for name in dir(django_settings):
        if name.startswith("LIVEFEED_") and name not in declared:
            errors.append(Warning(f"{name} is no setting of livefeed.", hint="Check the spelling.", id="livefeed.W011"))
    return errors


def _check_backends() -> Iterator[CheckMessage]:
    if settings.DATABASE not in connections.settings:
        yield Error(
            f"LIVEFEED_DATABASE is {settings.DATABASE!r}, which is not in DATABASES.",
            hint=f"Use one of {sorted(connections.settings)}.",
            id="livefeed.E012",
        )
    elif not connections[settings.DATABASE].settings_dict["AUTOCOMMIT"]:
        yield Error(
            f"DATABASES[{settings.DATABASE!r}] has AUTOCOMMIT = False: nobody hears of a commit, and what livefeed "
            "numbers by itself is not committed.",
            hint="Leave AUTOCOMMIT out, and use transaction.atomic() or ATOMIC_REQUESTS.",
            id="livefeed.E042",
        )
    if settings.PREFIX and not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", settings.PREFIX):
        yield Error(
            f"LIVEFEED_PREFIX is {settings.PREFIX!r}.",
            hint='Use 1 to 40 letters, digits, "-" and "_".',
            id="livefeed.E013",
        )
    for origin in settings.ALLOWED_ORIGINS:
        if problem := origin_problem(origin):
            yield Error(
                f"LIVEFEED_ALLOWED_ORIGINS: {problem}",
                hint="Each origin is compared as it is; there are no patterns.",
                id="livefeed.E019",
            )
    redis = list(_check_redis())
    yield from redis
    try:
        if not redis:
            get_history()
            get_leases()
    except ImproperlyConfigured as error:
        yield Error(str(error), hint="Correct the dotted path.", id="livefeed.E014")
    layers = getattr(django_settings, "CHANNEL_LAYERS", {})
    if settings.CHANNEL_LAYER != "default" and settings.CHANNEL_LAYER not in layers:
        yield Error(
            f"LIVEFEED_CHANNEL_LAYER is {settings.CHANNEL_LAYER!r}, which is not in CHANNEL_LAYERS.",
            hint=f"Use one of {sorted(layers)}.",
            id="livefeed.E015",
        )


def _check_redis() -> Iterator[CheckMessage]:
    needing = [IN_REDIS[path] for path in (settings.HISTORY, settings.LEASES) if path in IN_REDIS]
    if not needing:
        return
    if find_spec("redis") is None:
        yield Error(
            f"{needing[0]} in Redis, and the package redis is not installed.",
            hint='pip install "django-livefeed[redis]"',
            id="livefeed.E017",
        )
    elif problem := import_string("livefeed.redis_server.url_problem")(settings.REDIS):
        yield Error(
            problem,
            hint='LIVEFEED_REDIS = "redis://[user:password@]host:port/database", or redis+cluster://… for a Cluster.',
            id="livefeed.E018",
        )


def _check_authentication() -> Iterator[CheckMessage]:
    for path in settings.AUTHENTICATION:
        try:
            load(path)
        except ImproperlyConfigured as error:
            yield Error(
                str(error),
                hint="List dotted paths of callables (request) -> user | None, or of Django REST framework's classes.",
                id="livefeed.E040",
            )
    sessions = "livefeed.authentication.session" in settings.AUTHENTICATION
    if sessions and apps.is_installed("django.contrib.auth") and (missing := list(_missing_middleware())):
        yield Warning(
            f"LIVEFEED_AUTHENTICATION lists sessions, but MIDDLEWARE has no {' and no '.join(missing)}.",
            hint="Add it, or take livefeed.authentication.session out of the list.",
            id="livefeed.W041",
        )


def _missing_middleware() -> Iterator[str]:
    """Yield those classes of Django's by which a session is known that the site has neither as they are nor derived."""
    try:
        there = [import_string(path) for path in django_settings.MIDDLEWARE]
    except ImportError:
        return  # the site does not start, and says why
    for path in (
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ):
        wanted = import_string(path)
        if not any(isinstance(found, type) and issubclass(found, wanted) for found in there):
            yield path


@register("livefeed")
def check_site(**kwargs: Any) -> list[CheckMessage]:
    """Look at how the site serves its streams."""
    return [*_check_urls(), *_check_asgi(), *_check_databases()]


def _check_urls() -> Iterator[CheckMessage]:
    try:
        reverse("livefeed:stream")
    except NoReverseMatch:
        yield Warning(
            "livefeed.urls is not in the URLconf, so there is nothing to connect to.",
            hint='Add path("livefeed/", include("livefeed.urls")).',
            id="livefeed.W020",
        )
    except ImproperlyConfigured:
        pass  # Django's own checks report a URLconf that can't be loaded


def _check_asgi() -> Iterator[CheckMessage]:
    path = getattr(django_settings, "ASGI_APPLICATION", None)
    daphne = apps.is_installed("daphne")
    if not path:
        if daphne:
            yield Error(
                "ASGI_APPLICATION is not set, so runserver can't serve streams.",
                hint='Set ASGI_APPLICATION = "<project>.asgi.application".',
                id="livefeed.E021",
            )
        return
    try:
        application = import_string(path)
    except ImportError:
        return  # daphne reports that itself
    if daphne and not _is_wrapped(application):
        yield Error(
            f"{path} is served by Daphne without livefeed.asgi.wrap(): a client that does not read would fill the "
            "memory of the process.",
            hint="In asgi.py: application = livefeed.asgi.wrap(get_asgi_application())",
            id="livefeed.E022",
        )
    if daphne and not hasattr(import_string("daphne.http_protocol.WebRequest"), "registerProducer"):
        yield Error(
            "This Daphne has no registerProducer() on its requests, so livefeed.asgi.wrap() can't hold slow clients.",
            hint="Use a version of daphne that livefeed was tested with, and report this.",
            id="livefeed.E023",
        )


def _is_wrapped(application: Any) -> bool:
    """Look for the wrapper where people put it: outermost, in a ProtocolTypeRouter, or under a static files handler."""
    for _ in range(10):
        if isinstance(application, Wrapped):
            return True
        mapping = getattr(application, "application_mapping", None)
        application = mapping.get("http") if mapping else getattr(application, "application", None)
    return False


def _check_databases() -> Iterator[CheckMessage]:
    try:
        history = get_history()
    except ImproperlyConfigured:
        return  # check_settings reports it
    for feed in registry:
        alias = _alias_of(feed)
        if alias and history.alias not in (alias, None):
            yield Warning(
                f"{_class(feed)} is on the database {alias!r}, its history on {history.alias!r}.",
                hint="Its events are written after the commit: a process that dies in between loses them.",
                obj=type(feed),
                id="livefeed.W030",
            )


def _alias_of(feed: LiveFeed) -> str | None:
    return router.db_for_write(feed.model) if feed.model is not None else None


@register(Tags.security, "livefeed", deploy=True)
def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    """Look at what only matters in production."""
    layers = getattr(django_settings, "CHANNEL_LAYERS", {})
    backend = layers.get(settings.CHANNEL_LAYER, {}).get("BACKEND", "channels.layers.InMemoryChannelLayer")
    if backend != "channels.layers.InMemoryChannelLayer":
        return []
    return [
        Warning(
            "The channel layer is in memory: an event from another process arrives with the next look, up to "
            f"{settings.LOOK_INTERVAL} s late, and fleeting events not at all.",
            hint="Use channels_redis.pubsub.RedisPubSubChannelLayer where more than one process serves the site.",
            id="livefeed.W031",
        )
    ]
