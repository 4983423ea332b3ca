"""The system checks: each id for what it is about, with a hint, and silence for a site that is in order."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import daphne.http_protocol
import pytest
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.core import checks
from django.core.checks import CheckMessage
from django.core.management import call_command
from django.db import connections
from django.http import HttpResponse

from livefeed import LiveFeed
from livefeed.asgi import wrap
from livefeed.conf import Settings
from livefeed.registry import registry
from tests.testapp.models import Article, Elsewhere, Task

pytest_plugins = ["tests.reading_fixtures"]

#: This module as a URLconf: a site that forgot to include livefeed.urls.
urlpatterns: list[Any] = []


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that nobody wrapped."""


wrapped = wrap(bare)
routed = SimpleNamespace(application_mapping={"http": wrapped})
routed_bare = SimpleNamespace(application_mapping={"websocket": wrapped})
under_static_files = SimpleNamespace(application=wrapped)
deep = SimpleNamespace(application=SimpleNamespace(application_mapping={"http": under_static_files}))


def found(*, deploy: bool = False) -> list[CheckMessage]:
    """Return what the checks say about livefeed."""
    messages = checks.run_checks(tags=["livefeed"], include_deployment_checks=deploy)
    return [message for message in messages if str(message.id).startswith("livefeed.")]


def about(id: str, *, deploy: bool = False) -> CheckMessage:
    """Return the one message with this id; it has to have a hint."""
    (message,) = [message for message in found(deploy=deploy) if message.id == f"livefeed.{id}"]
    assert message.hint
    return message


def ids(*, deploy: bool = False) -> list[str]:
    return sorted(str(message.id) for message in found(deploy=deploy))


def test_a_site_in_order_hears_nothing_but_of_its_other_database() -> None:
    assert ids() == ["livefeed.W030"]


def test_manage_py_check_runs_them(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("check", "--tag", "livefeed")
    assert "livefeed.W030" in capsys.readouterr().err


# -- feeds ------------------------------------------------------------------------------------------------------------


def test_e001_two_feeds_own_the_same_topics(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    class Second(LiveFeed):
        model = Article
        fields = ["title"]

    with_feed(Second)
    message = about("E001")
    assert "testapp.article" in message.msg
    assert "ArticleFeed" in message.msg
    assert "Second" in message.msg


def test_e001_the_first_feed_keeps_the_topics(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    before = registry.owner("testapp.article")

    class Second(LiveFeed):
        model = Article
        fields = ["title"]

    with_feed(Second)
    assert registry.owner("testapp.article") is before


def test_e002_fields_is_a_string(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    class Stringly(LiveFeed):
        model = Task
        name = "stringly"
        fields = "title"  # type: ignore[assignment]

    with_feed(Stringly)
    assert '["title"]' in str(about("E002").hint)


def test_e003_a_feed_names_no_fields(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    class Empty(LiveFeed):
        model = Task
        name = "empty"

    with_feed(Empty)
    assert "Empty" in about("E003").msg


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retention", -1),
        ("retention", "1h"),
        ("retention", True),
        ("retention", float("nan")),
        ("retention", float("inf")),
        ("retention_events", -1),
        ("retention_events", 2.5),
        ("retention_events", "all"),
    ],
)
def test_e006_a_retention_that_is_no_limit(
    with_feed: Callable[[type[LiveFeed]], None], name: str, value: object
) -> None:
    with_feed(type("Kept", (LiveFeed,), {"name": "kept", name: value}))
    message = about("E006")
    assert f"`{name}`" in message.msg
    assert repr(value) in message.msg


def test_w007_a_feed_that_keeps_everything(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    class Kept(LiveFeed):
        name = "kept"
        retention = 0
        retention_events = 0

    with_feed(Kept)
    assert "for ever" in about("W007").msg


def test_a_retention_with_one_limit_is_in_order(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    class Kept(LiveFeed):
        name = "kept"
        retention = 0
        retention_events = 5

    class Half(LiveFeed):
        name = "half"
        retention = 0.5

    with_feed(Kept)
    with_feed(Half)
    assert ids() == ["livefeed.W030"]


def test_w016_settings_that_keep_everything(settings: Any) -> None:
    settings.LIVEFEED_RETENTION = 0.0
    settings.LIVEFEED_RETENTION_EVENTS = 0
    assert "for ever" in about("W016").msg


def test_e003_is_silent_where_get_data_says_it_all(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    class Own(LiveFeed):
        model = Task
        name = "own"

        def get_data(self, instance: Any) -> dict[str, Any]:
            return {"title": instance.title}

    with_feed(Own)
    assert "livefeed.E003" not in ids()


def test_e004_a_field_that_the_model_does_not_have(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    class Misspelt(LiveFeed):
        model = Article
        name = "misspelt"
        fields = ["title", "titel", "author__name", "author__nmae", "url", "tags"]

    with_feed(Misspelt)
    messages = [message.msg for message in found() if message.id == "livefeed.E004"]
    assert len(messages) == 2
    assert "'titel'" in messages[0]
    assert "'author__nmae'" in messages[1]


def test_w005_topics_of_one_s_own_without_items(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    class Topical(LiveFeed):
        model = Task
        name = "topical"
        fields = ["title"]

        def get_topics(self, instance: Any) -> list[str]:
            return [f"{self.name}:{instance.pk}"]

    with_feed(Topical)
    assert "get_queryset" in str(about("W005").hint)


def test_every_column_may_be_named_at_once(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    class Everything(LiveFeed):
        model = Task
        name = "everything"
        fields = "__all__"

    with_feed(Everything)
    assert ids() == ["livefeed.W030"]


def test_e042_a_database_that_does_not_commit_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections["default"].settings_dict, "AUTOCOMMIT", False)
    assert "DATABASES['default']" in about("E042").msg


def test_w030_a_feed_on_another_database_than_its_history() -> None:
    message = about("W030")
    assert "'other'" in message.msg
    assert message.obj is type(registry.owner("testapp.elsewhere"))
    assert Elsewhere._meta.label_lower == "testapp.elsewhere"


def test_w030_is_silent_where_the_history_is_in_no_database(settings: Any) -> None:
    settings.LIVEFEED_HISTORY = "livefeed.history.memory.MemoryHistory"
    assert ids() == []


def test_e008_e009_w024_html_is_rendered_of_a_model_s_rows_once_for_all(
    with_feed: Callable[[type[LiveFeed]], None],
) -> None:
    class NoRows(LiveFeed):
        name = "no-rows"
        html = True

    class Each(LiveFeed):
        model = Task
        name = "each"
        fields = ["title"]
        html = True

        def get_data_for(self, user: Any, event: Any) -> Any:
            return event.data

    class Unnamed(LiveFeed):
        model = Task
        name = "unnamed"
        fields = ["title"]
        html = True
        event_names = False

    for feed in (NoRows, Each, Unnamed):
        with_feed(feed)
    assert ids() == ["livefeed.E008", "livefeed.E009", "livefeed.W024", "livefeed.W030"]
    assert ("NoRows" in about("E008").msg, "Each" in about("E009").msg, "Unnamed" in about("W024").msg) == (True,) * 3


# -- settings ---------------------------------------------------------------------------------------------------------


WRONG: dict[str, list[Any]] = {
    "HISTORY": [None, 7],
    "LEASES": [7],
    "REDIS": [7, None],
    "DATABASE": [None, ["default"]],
    "CHANNEL_LAYER": [7],
    "PREFIX": [7],
    "RETENTION": ["86400", -1, None, True],
    "RETENTION_EVENTS": [1.5, -1, "x"],
    "LOOK_INTERVAL": [0, 0.01, "1"],
    "RELAY_PAUSE": [-0.01, 1.5, "0.01"],
    "TAIL_BYTES": [0, 1000, 1e9],
    "MAX_EVENT_BYTES": [0, "256k"],
    "KEEPALIVE": [0, -1, "15"],
    "SEND_TIMEOUT": [-1, None],
    "MAX_TOPICS": [0, 1.5, True, 151],
    "MAX_REPLAY": [-1, 1.5],
    "DRAIN_SECONDS": [-1],
    "ALLOWED_ORIGINS": ["https://app.example.com", None, [7]],
    "MAX_CONNECTIONS_PER_USER": [-1, None],
    "MAX_CONNECTIONS_PER_SESSION": [-1, "10"],
    "MAX_CONNECTIONS_PER_ADDRESS": [-1, 1.5],
    "MAX_CONNECTIONS_PER_TOPIC": [-1, True],
    "MAX_CONNECTIONS": [-1],
    "CONNECTS_PER_MINUTE": [-1, 0.5],
    "CONNECTING": [-1, "16"],
    "LEASE_SECONDS": [0, 2.9],
    "TRUSTED_PROXIES": [-1, "1"],
    "RECHECK_INTERVAL": [0, 0.5],
    "SIGNATURE_SECONDS": [0, "1 day"],
    "AUTHENTICATION": [None, "livefeed.authentication.session", [7]],
}


def test_every_setting_has_wrong_values_to_try() -> None:
    assert {f"LIVEFEED_{name}" for name in WRONG} == {setting.name for setting in Settings.declared()}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_e010_a_setting_that_can_t_be_meant(settings: Any, name: str, value: Any) -> None:
    setattr(settings, f"LIVEFEED_{name}", value)
    message = about("E010")
    assert f"LIVEFEED_{name}" in message.msg
    assert repr(value) in message.msg


@pytest.mark.parametrize("name", [setting.name for setting in Settings.declared()])
def test_the_default_of_each_setting_is_in_order(settings: Any, name: str) -> None:
    (declared,) = [setting for setting in Settings.declared() if setting.name == name]
    setattr(settings, name, declared.default)
    assert ids() == ["livefeed.W030"]


@pytest.mark.parametrize("origin", ["app.example.com", "https://app.example.com/", "https://*.example.com", "*"])
def test_e019_an_origin_that_no_browser_sends(settings: Any, origin: str) -> None:
    settings.LIVEFEED_ALLOWED_ORIGINS = ["https://ok.example.com", origin]
    message = about("E019")
    assert repr(origin) in message.msg
    assert "https://app.example.com" in message.msg


def test_whole_numbers_are_seconds_too(settings: Any) -> None:
    settings.LIVEFEED_KEEPALIVE = 20
    settings.LIVEFEED_RETENTION = 0
    assert ids() == ["livefeed.W030"]


def test_w011_a_setting_that_nobody_reads(settings: Any) -> None:
    settings.LIVEFEED_KEEP_ALIVE = 20
    assert "LIVEFEED_KEEP_ALIVE" in about("W011").msg


def test_e012_a_database_that_is_not_there(settings: Any) -> None:
    settings.LIVEFEED_DATABASE = "nowhere"
    message = about("E012")
    assert "'nowhere'" in message.msg
    assert "default" in str(message.hint)


@pytest.mark.parametrize("prefix", ["a b", "ä", "x" * 41, "a:b"])
def test_e013_a_prefix_that_no_layer_takes(settings: Any, prefix: str) -> None:
    settings.LIVEFEED_PREFIX = prefix
    assert repr(prefix) in about("E013").msg


@pytest.mark.parametrize("setting", ["LIVEFEED_HISTORY", "LIVEFEED_LEASES"])
@pytest.mark.parametrize("path", ["nowhere.History", "history", "collections.OrderedDict", "livefeed.history.nothing"])
def test_e014_a_backend_that_is_none(settings: Any, setting: str, path: str) -> None:
    setattr(settings, setting, path)
    message = about("E014")
    assert setting in message.msg
    assert path in message.msg


def test_e015_a_channel_layer_that_is_not_there(settings: Any) -> None:
    settings.LIVEFEED_CHANNEL_LAYER = "fast"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    message = about("E015")
    assert "'fast'" in message.msg
    assert "default" in str(message.hint)


def known_to_nobody(request: Any) -> None:
    """An authenticator, to be named."""


@pytest.mark.parametrize(
    "path", ["nowhere.token", "livefeed.authentication.nothing", "livefeed.conf.Settings", "tests"]
)
def test_e040_an_authenticator_that_is_none(settings: Any, path: str) -> None:
    settings.LIVEFEED_AUTHENTICATION = ["livefeed.authentication.session", path]
    assert repr(path) in about("E040").msg


@pytest.mark.parametrize(
    "path",
    [
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
        f"{__name__}.known_to_nobody",
    ],
)
def test_callables_and_classes_of_rest_framework_are_authenticators(settings: Any, path: str) -> None:
    settings.LIVEFEED_AUTHENTICATION = (path,)
    assert "livefeed.E040" not in ids()


@pytest.mark.parametrize(
    "missing", ["sessions.middleware.SessionMiddleware", "auth.middleware.AuthenticationMiddleware"]
)
def test_w041_sessions_without_their_middleware(settings: Any, missing: str) -> None:
    settings.MIDDLEWARE = [path for path in settings.MIDDLEWARE if not path.endswith(missing)]
    assert missing in about("W041").msg
    settings.LIVEFEED_AUTHENTICATION = ["livefeed.authentication.token"]
    assert "livefeed.W041" not in ids()


class DerivedMiddleware(AuthenticationMiddleware):
    """As sites have them."""


def test_w041_is_silent_for_a_derived_middleware(settings: Any) -> None:
    own = f"{__name__}.DerivedMiddleware"
    settings.MIDDLEWARE = [own if path.endswith("AuthenticationMiddleware") else path for path in settings.MIDDLEWARE]
    assert "livefeed.W041" not in ids()


# -- how the site serves ----------------------------------------------------------------------------------------------


@pytest.mark.urls("tests.test_checks")
def test_w020_the_urls_are_not_included() -> None:
    assert 'include("livefeed.urls")' in str(about("W020").hint)


def test_e021_daphne_without_an_asgi_application(settings: Any) -> None:
    settings.ASGI_APPLICATION = None
    assert "ASGI_APPLICATION" in about("E021").msg


def test_a_site_without_daphne_may_do_without(settings: Any) -> None:
    settings.ASGI_APPLICATION = None
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "daphne"]
    assert ids() == ["livefeed.W030"]


@pytest.mark.parametrize("name", ["bare", "routed_bare"])
def test_e022_daphne_serves_streams_that_nobody_wrapped(settings: Any, name: str) -> None:
    settings.ASGI_APPLICATION = f"tests.test_checks.{name}"
    message = about("E022")
    assert message.level == checks.ERROR
    assert "livefeed.asgi.wrap(" in str(message.hint)


@pytest.mark.parametrize("name", ["wrapped", "routed", "under_static_files", "deep"])
def test_the_wrapper_is_found_where_people_put_it(settings: Any, name: str) -> None:
    settings.ASGI_APPLICATION = f"tests.test_checks.{name}"
    assert ids() == ["livefeed.W030"]


def test_other_servers_need_no_wrapper(settings: Any) -> None:
    settings.ASGI_APPLICATION = "tests.test_checks.bare"
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "daphne"]
    assert ids() == ["livefeed.W030"]


def test_e023_a_daphne_that_can_t_hold_slow_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daphne.http_protocol, "WebRequest", HttpResponse)
    assert "registerProducer" in about("E023").msg


# -- production -------------------------------------------------------------------------------------------------------


def test_w031_a_layer_in_memory_in_production() -> None:
    assert "livefeed.W031" not in ids()
    assert "RedisPubSub" in str(about("W031", deploy=True).hint)


def test_w031_is_silent_with_redis(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer"}}
    assert "livefeed.W031" not in ids(deploy=True)


def test_w031_looks_at_the_layer_that_is_used(settings: Any) -> None:
    settings.LIVEFEED_CHANNEL_LAYER = "fast"
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels.layers.InMemoryChannelLayer"},
        "fast": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer"},
    }
    assert "livefeed.W031" not in ids(deploy=True)
