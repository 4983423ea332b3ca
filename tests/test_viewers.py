"""Who is asking, where from, and whether they still are who they were; with each of Django's session engines."""

from __future__ import annotations

import datetime
import gc
import logging
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.backends import BaseBackend, ModelBackend
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.db import DataError, OperationalError, ProgrammingError
from django.http import HttpRequest
from django.test import RequestFactory
from django.utils import timezone
from django.utils.functional import SimpleLazyObject
from hypothesis import example, given
from hypothesis import strategies as st

from livefeed import addresses, create_token
from livefeed.access import grant
from livefeed.addresses import counted
from livefeed.authentication import Asked, Identity, kept
from livefeed.authentication import session as session_authenticator
from livefeed.conf import Settings
from livefeed.tokens import password_digest, read_token
from livefeed.topics import sign_topic, viewer_key
from livefeed.viewers import Viewer, address_of, today, viewer_of
from tests.processes import run
from tests.testapp.models import Article

MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"
ENGINES = ["db", "cache", "cached_db", "file", "signed_cookies"]
ADDRESS = "127.0.0.1"


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, settings: Any, tmp_path: Path, db: None) -> Iterator[str]:
    """Each of Django's own session engines in turn, by its name."""
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{request.param}"
    settings.SESSION_FILE_PATH = str(tmp_path)
    store = new_session()
    if request.param == "file":
        type(store)._storage_path = str(tmp_path)  # Django remembers the first one
    yield request.param
    if request.param == "file":
        del type(store)._storage_path
    caches["default"].clear()


def new_session(key: str | None = None) -> Any:
    return import_module(django_settings.SESSION_ENGINE).SessionStore(key)


def session_of(user: Any = None, backend: str = MODEL_BACKEND, **data: Any) -> Any:
    """Return a stored session in which a user is signed in, if one is given."""
    session = new_session()
    if user is not None:
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = backend
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.update(data)
    session.save()
    return session


def request_of(session: Any = None, user: Any = None, **headers: str) -> HttpRequest:
    request = RequestFactory().get("/", headers={name.replace("_", "-"): value for name, value in headers.items()})
    if session is not None:
        request.session = new_session(session.session_key)
    request.user = AnonymousUser() if user is None else user
    return request


def signed_in(user: Any, session: Any = None) -> Viewer:
    return viewer_of(request_of(session or session_of(user), user))


def new_users(count: int) -> list[User]:
    return User.objects.bulk_create([User(username=f"user{n}", password=f"password {n}") for n in range(count)])


# -- addresses --------------------------------------------------------------------------------------------------------


def request_from(address: str, forwarded: str | None = None) -> HttpRequest:
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    return RequestFactory().get("/", headers=headers, REMOTE_ADDR=address)


@pytest.mark.parametrize(
    ("trusted", "forwarded", "address"),
    [
        (0, None, "10.0.0.1"),
        (0, "1.2.3.4", "10.0.0.1"),  # anybody can write that
        (1, "1.2.3.4", "1.2.3.4"),
        (1, "6.6.6.6, 1.2.3.4", "1.2.3.4"),  # what stands before the last hop is the client's word
        (2, "6.6.6.6, 1.2.3.4, 10.0.0.2", "1.2.3.4"),
        (2, "1.2.3.4", "1.2.3.4"),
        (1, "", "10.0.0.1"),
        (1, None, "10.0.0.1"),
        (1, "1.2.3.4 ,", "1.2.3.4"),
        (1, "1.2.3.4:5678", "1.2.3.4"),
        (1, "[2001:db8::1]:443", "2001:db8::/64"),
        (1, "1.2.3.4, <script>", "unknown"),
    ],
)
def test_the_address_is_what_our_own_proxies_report(
    settings: Any, trusted: int, forwarded: str | None, address: str
) -> None:
    settings.LIVEFEED_TRUSTED_PROXIES = trusted
    assert address_of(request_from("10.0.0.1", forwarded)) == address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:443", "192.0.2.7"),
        ("192.0.2.7:", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::9", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::9]", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::9]:443", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("[::ffff:c000:207]:80", "192.0.2.7"),
        *[(text, "unknown") for text in ("", "unknown", "_hidden", "a.b", "1.2.3", "1.2.3.4.5", "[1.2", "1.2.3.4:x")],
        *[(text, "unknown") for text in ("192.0.2.07", "[2001:db8::1", "1.2.3.4\n", "٣.1.1.1", "\0", "/run/socket")],
    ],
)
def test_what_an_address_counts_as(text: str, address: str) -> None:
    assert counted(text) == address


@given(st.text(max_size=60))
@example("[::1%" + "x" * 1000 + "]:1")
def test_whatever_is_sent_as_an_address_is_one_of_few(text: str) -> None:
    address = counted(text)
    assert address.isascii()
    assert len(address) <= 60


@pytest.fixture
def not_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_warned", False)


@pytest.mark.usefixtures("not_warned")
@pytest.mark.parametrize("peer", ["127.0.0.1", "10.1.2.3", "::1", "fd00::1"])
def test_a_proxy_that_nobody_told_us_of_is_warned_of_once(caplog: pytest.LogCaptureFixture, peer: str) -> None:
    for forwarded in ("192.0.2.7", "192.0.2.8"):
        address_of(request_from(peer, forwarded))
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("livefeed.viewers", logging.WARNING)
    assert "LIVEFEED_TRUSTED_PROXIES is 0" in record.message
    assert "192.0.2" not in record.message


@pytest.mark.usefixtures("not_warned")
@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted"),
    [
        ("10.1.2.3", None, 0),
        ("10.1.2.3", "192.0.2.7", 1),
        ("8.8.8.8", "192.0.2.7", 0),  # a client that writes the header itself
        ("10.9.9.9", "10.9.9.9", 0),  # the server has already looked at the header
        ("", "192.0.2.7", 0),
    ],
)
def test_no_warning_where_nothing_is_wrong(
    caplog: pytest.LogCaptureFixture, settings: Any, peer: str, forwarded: str | None, trusted: int
) -> None:
    settings.LIVEFEED_TRUSTED_PROXIES = trusted
    address_of(request_from(peer, forwarded))
    assert not caplog.records


# -- keys and holders -------------------------------------------------------------------------------------------------


def test_users_sessions_and_addresses_are_different_holders() -> None:
    user = User(pk=7)
    holders = {
        Viewer(user, "s1", "a").holder,
        Viewer(AnonymousUser(), "s1", "a").holder,
        Viewer(AnonymousUser(), "s2", "a").holder,
        Viewer(AnonymousUser(), None, "a").holder,
        Viewer(AnonymousUser(), None, "b").holder,
        Viewer(AnonymousUser(), "a", "b").holder,
    }
    assert len(holders) == 6


def test_a_user_is_one_holder_wherever_they_are() -> None:
    user = User(pk=7)
    assert Viewer(user, "s1", "a").holder == Viewer(user, "s2", "b").holder == "user:7"


def test_a_digest_is_the_same_for_all_of_a_user_and_for_all_guests() -> None:
    user = User(pk=7)
    assert Viewer(user, "s1", "a").digest == Viewer(user, None, "b").digest != Viewer(User(pk=8), "s1", "a").digest
    assert Viewer(AnonymousUser(), "s1", "a").digest == Viewer(AnonymousUser(), None, "b").digest
    assert Viewer(AnonymousUser(), "s1", "a").digest != Viewer(user, "s1", "a").digest


def test_neither_session_nor_address_can_be_read_from_a_lease_or_a_repr() -> None:
    for viewer in (Viewer(AnonymousUser(), "secret-session", "a"), Viewer(User(pk=7), "secret-session", "a")):
        assert "secret-session" not in viewer.holder + repr(viewer) + str(viewer)
    assert "192.0.2.7" not in Viewer(AnonymousUser(), None, "192.0.2.7").holder


def with_key(pk: Any) -> Any:
    return SimpleNamespace(pk=pk, is_authenticated=True)


KEYS = [
    7,
    "7x",
    UUID(int=7),
    "ann@example.com",
    "änn",
    "x" * 500,
    "x" * 499 + "y",
    "ä" * 500,
    "",
    " ",
    "a b",
    "a:b",
    "~",
    "\ud800",
]


@pytest.mark.parametrize("pk", KEYS, ids=lambda pk: ascii(pk)[:20])
def test_whatever_a_user_s_key_is_the_holder_is_short_and_plain(pk: Any) -> None:
    for text in (Viewer(with_key(pk), None, "a").holder, viewer_key(with_key(pk), None)):
        assert text.isascii()
        assert text.isprintable()
        assert len(text) <= 80
        assert " " not in text


def test_different_keys_are_different_holders() -> None:
    assert len({Viewer(with_key(pk), None, "a").holder for pk in KEYS}) == len(KEYS)
    mail = viewer_key(with_key("ann@example.com"), None)
    assert viewer_key(with_key(mail.removeprefix("user:")), None) != mail  # a key that looks like a digest


@pytest.mark.parametrize("key", ["s" * 32, "signed:cookie:" + "x" * 3000, "ä" * 40, "a b"])
def test_a_session_s_key_is_short_and_plain_too(key: str) -> None:
    assert len(viewer_key(AnonymousUser(), key)) <= 80
    assert viewer_key(AnonymousUser(), key).isascii()


@pytest.mark.parametrize("pk", KEYS[:-1], ids=lambda pk: ascii(pk)[:20])
def test_names_are_signed_for_users_with_any_key(pk: Any) -> None:
    viewer = Viewer(with_key(pk), None, "a")
    name = sign_topic("unowned", viewer.key)
    assert grant(viewer, [name]).names
    assert not grant(Viewer(with_key(8), None, "a"), [name]).names


def test_a_name_signed_for_a_user_with_a_long_key_survives_a_new_secret_key(settings: Any) -> None:
    settings.SECRET_KEY = "older"
    viewer = Viewer(with_key("ann@example.com"), None, "a")
    name = sign_topic("unowned", viewer.key)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "newer", ["older"]
    assert grant(viewer, [name]).names


# -- who is asking ----------------------------------------------------------------------------------------------------


def test_a_request_without_middleware_comes_from_an_address() -> None:
    viewer = viewer_of(request_from("10.0.0.1"))
    assert (viewer.is_user, viewer.session_key, viewer.key) == (False, None, "anonymous")
    assert viewer.holder.startswith("address:")


@pytest.mark.django_db
def test_the_viewer_of_a_session_is_its_user() -> None:
    user = User.objects.create_user("ann")
    viewer = signed_in(user)
    assert (viewer.key, viewer.by_session, viewer.scope, viewer.proof) == (f"user:{user.pk}", True, None, None)


@pytest.mark.django_db
def test_a_user_of_a_middleware_is_not_the_session_s() -> None:
    ann, bob = User.objects.create_user("ann"), User.objects.create_user("bob")
    assert viewer_of(request_of(session_of(), ann)).by_session is False
    assert viewer_of(request_of(session_of(bob), ann)).by_session is False
    assert viewer_of(request_of(None, ann)).by_session is False


def around_the_session(request: HttpRequest) -> Any:
    """Know whom Django knows, as long as a header says that they are members; to be asked again."""
    identity = session_authenticator(request)
    path = f"{__name__}.around_the_session"
    return identity and identity._replace(proof=kept(path, request)) if request.headers.get("X-Member") else None


@pytest.mark.django_db
def test_an_authenticator_around_django_s_may_want_to_be_asked_again(settings: Any) -> None:
    settings.LIVEFEED_AUTHENTICATION = [f"{__name__}.around_the_session"]
    ann = User.objects.create_user("ann")
    for session in (None, session_of(ann)):
        viewer = viewer_of(request_of(session, ann, x_member="yes"))
        assert isinstance(viewer.proof, Asked)
        assert not viewer.by_session


def narrower_than_the_session(request: HttpRequest) -> Any:
    """Know whom Django knows, for one topic only."""
    found = session_authenticator(request)
    return found and Identity(found.user, frozenset({"plain"}), found.proof)


def members_by_the_session(request: HttpRequest) -> Any:
    """Know whom Django knows, as long as they are staff."""
    return session_authenticator(request) if request.user.is_staff else None


@pytest.mark.parametrize("name", ["narrower_than_the_session", "members_by_the_session"])
@pytest.mark.parametrize("end", ["password", "condition"])
@pytest.mark.django_db
def test_what_an_authenticator_makes_of_django_s_is_asked_for_again(settings: Any, name: str, end: str) -> None:
    settings.LIVEFEED_AUTHENTICATION = [f"{__name__}.{name}"]
    ann = User.objects.create_user("ann", is_staff=True)
    viewer = viewer_of(request_of(session_of(ann), ann))
    assert today([viewer]) == [viewer]
    ann.set_password("another")
    ann.is_staff = end != "condition"
    ann.save(update_fields=["password"] if end == "password" else ["is_staff"])
    knows_still = (name, end) == ("narrower_than_the_session", "condition")
    assert (today([viewer])[0] is not None) is knows_still


def test_a_visitor_without_a_user_has_their_session(engine: str) -> None:
    session = session_of(basket=[1])
    viewer = viewer_of(request_of(session))
    assert (viewer.is_user, viewer.session_key) == (False, session.session_key)


def test_a_session_that_somebody_made_up_is_none(engine: str) -> None:
    made_up = SimpleNamespace(session_key="madeup" * 6)
    assert viewer_of(request_of(made_up)).session_key is None
    assert viewer_of(request_of(session_of())).session_key is not None


def with_a_scope(request: HttpRequest) -> Identity:
    return Identity(User(pk=1, is_superuser=True), frozenset({"plain"}))


def test_a_scope_of_an_authenticator_s_own_restricts_too(settings: Any) -> None:
    settings.LIVEFEED_AUTHENTICATION = ["tests.test_viewers.with_a_scope"]
    viewer = viewer_of(request_of())
    assert viewer.scope == {"plain"}
    assert grant(viewer, ["plain", "testapp.article"]).refused == ["testapp.article"]


@pytest.mark.django_db
def test_a_viewer_does_not_hold_its_request() -> None:
    user = User.objects.create_user("ann")
    request = request_of(session_of(user))
    request.user = SimpleLazyObject(lambda: (request, user)[1])
    assert type(viewer_of(request).user) is User


# -- today: sessions --------------------------------------------------------------------------------------------------


def test_who_is_still_signed_in_is_who_they_were(engine: str) -> None:
    ann, bob = new_users(2)
    viewers = [signed_in(ann), signed_in(bob), signed_in(ann), viewer_of(request_of(session_of(basket=1)))]
    assert today(viewers) == viewers


def test_a_user_comes_back_as_they_are_now(engine: str) -> None:
    (ann,) = new_users(1)
    viewer = signed_in(ann)
    User.objects.update(first_name="Anna")
    (now,) = today([viewer])
    assert now is not None
    assert (now.user.first_name, now.session_key) == ("Anna", viewer.session_key)


def _new_password(user: User) -> None:
    user.set_password("another")
    user.save()


def _deactivate(user: User) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def _delete(user: User) -> None:
    User.objects.filter(pk=user.pk).delete()


@pytest.mark.parametrize("end", [_new_password, _deactivate, _delete], ids=lambda end: end.__name__.strip("_"))
def test_who_was_deactivated_or_deleted_or_has_a_new_password_is_gone(engine: str, end: Callable[[User], None]) -> None:
    ann, bob = new_users(2)
    viewers = [signed_in(ann), signed_in(bob)]
    end(ann)
    assert today(viewers) == [None, viewers[1]]


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "signed_cookies"], indirect=True)
def test_who_logged_out_is_gone(engine: str) -> None:
    """A signed cookie is the session: whoever has a copy of it is not logged out by the loss of another."""
    ann, bob = new_users(2)
    session, anonymous = session_of(ann), session_of(basket=1)
    viewers = [signed_in(ann, session), signed_in(bob), viewer_of(request_of(anonymous))]
    session.delete()
    anonymous.delete()
    assert today(viewers) == [None, viewers[1], None]


@pytest.mark.parametrize("engine", ["file", "signed_cookies"], indirect=True)
def test_a_session_that_expired_is_gone_and_nothing_is_begun_in_its_place(
    engine: str, settings: Any, tmp_path: Path
) -> None:
    viewers = [signed_in(*new_users(1)), viewer_of(request_of(session_of(basket=1)))]
    files = sorted(path.name for path in tmp_path.iterdir())
    settings.SESSION_COOKIE_AGE = -1
    assert today(viewers) == [None, None]
    assert sorted(path.name for path in tmp_path.iterdir()) == files


@pytest.mark.django_db
def test_a_session_that_expired_in_the_database_is_gone() -> None:
    viewers = [signed_in(*new_users(1)), viewer_of(request_of(session_of(basket=1)))]
    Session.objects.update(expire_date=timezone.now() - datetime.timedelta(seconds=1))
    assert today(viewers) == [None, None]


def test_a_session_of_somebody_else_by_now_is_not_the_viewer_s(engine: str) -> None:
    ann, bob = new_users(2)
    session = session_of(ann)
    viewer = signed_in(ann, session)
    session[SESSION_KEY], session[HASH_SESSION_KEY] = str(bob.pk), bob.get_session_auth_hash()
    session.save()
    if engine != "signed_cookies":  # there it is another session
        assert today([viewer]) == [None]


@pytest.mark.parametrize(
    "data",
    [
        {BACKEND_SESSION_KEY: "gone.Backend"},
        {SESSION_KEY: "no key"},
        {HASH_SESSION_KEY: ""},
        {HASH_SESSION_KEY: "another"},
    ],
)
@pytest.mark.django_db
def test_a_session_that_django_would_not_take_is_nobody_s(data: dict[str, str]) -> None:
    (ann,) = new_users(1)
    session = session_of(ann)
    viewer = signed_in(ann, session)
    session.update(data)
    session.save()
    assert today([viewer]) == [None]


def test_a_session_from_before_a_new_secret_key_holds_while_the_older_is_listed(engine: str, settings: Any) -> None:
    settings.SECRET_KEY = "older"
    viewer = signed_in(*new_users(1))
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "newer", ["other", "older"]
    assert today([viewer]) == [viewer]
    settings.SECRET_KEY_FALLBACKS = ["other"]
    assert today([viewer]) == [None]


def test_looking_never_writes_or_prolongs_a_session(engine: str, tmp_path: Path) -> None:
    viewers = [signed_in(*new_users(1)), viewer_of(request_of(session_of(basket=1)))]
    before = _stored(tmp_path)
    assert today(viewers) == viewers
    assert _stored(tmp_path) == before


def _stored(folder: Path) -> Any:
    """Return what is stored of sessions, with the times of it."""
    cached = dict(getattr(caches["default"], "_expire_info", {}))
    files = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    return cached, files, list(Session.objects.order_by("pk").values())


@pytest.mark.parametrize("engine", ["cached_db"], indirect=True)
def test_what_the_cache_lost_is_read_from_the_database_and_not_put_back(engine: str) -> None:
    viewers = [signed_in(user) for user in new_users(3)]
    caches["default"].delete("django.contrib.sessions.cached_db" + str(viewers[1].session_key))
    assert today(viewers) == viewers
    caches["default"].clear()
    assert today(viewers) == viewers
    assert not caches["default"]._expire_info  # type: ignore[attr-defined]


class Away:
    """A cache that can't be reached."""

    def get_many(self, keys: Any) -> Any:
        raise ConnectionError("away")


@pytest.mark.parametrize("engine", ["cache", "cached_db"], indirect=True)
def test_a_cache_that_is_away_ends_no_session(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    viewer = signed_in(*new_users(1))
    monkeypatch.setattr("livefeed.sessions.caches", {"default": Away()})
    if engine == "cached_db":
        assert today([viewer]) == [viewer]
    else:
        with pytest.raises(ConnectionError):
            today([viewer])


@pytest.mark.django_db
def test_a_database_that_is_away_ends_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    viewers = [signed_in(*new_users(1))]

    def away(*args: Any, **kwargs: Any) -> Any:
        raise OperationalError("away")

    monkeypatch.setattr("django.db.backends.utils.CursorWrapper.execute", away)
    with pytest.raises(OperationalError):
        today(viewers)


# -- today: how much is asked -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "queries"),
    [("db", 4), ("cache", 2), ("cached_db", 2), ("file", 2), ("signed_cookies", 2)],
    indirect=["engine"],
)
def test_a_thousand_users_in_a_thousand_sessions_take_a_handful_of_queries(
    engine: str, queries: int, django_assert_num_queries: Any, settings: Any
) -> None:
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": 5000}}
    }
    viewers = [signed_in(user) for user in new_users(1000)]
    with django_assert_num_queries(queries):
        assert today(viewers) == viewers


@pytest.mark.django_db
def test_a_thousand_anonymous_sessions_take_two_queries(django_assert_num_queries: Any) -> None:
    viewers = [viewer_of(request_of(session_of(basket=n))) for n in range(1000)]
    with django_assert_num_queries(2):
        assert today(viewers) == viewers


@pytest.mark.django_db
def test_a_thousand_tokens_take_two_queries(django_assert_num_queries: Any) -> None:
    tokens = [create_token(user, max_age=60) for user in new_users(1000)]
    viewers = [viewer_of(request_of(authorization=f"Bearer {text}")) for text in tokens]
    with django_assert_num_queries(2):
        assert today(viewers) == viewers


@pytest.mark.django_db
def test_who_has_neither_user_nor_session_is_asked_nothing(django_assert_num_queries: Any) -> None:
    viewers = [Viewer(AnonymousUser(), None, ADDRESS), Viewer(None, None, ADDRESS)]
    with django_assert_num_queries(0):
        assert today(viewers) == viewers
        assert today([]) == []


# -- today: backends --------------------------------------------------------------------------------------------------


class OneByOne(BaseBackend):
    """A backend with a look-up of its own, which knows nobody whose name is "hidden"."""

    asked: list[Any] = []

    def get_user(self, user_id: Any) -> Any:
        self.asked.append(user_id)
        return User.objects.filter(pk=user_id).exclude(username="hidden").first()


class Tolerant(ModelBackend):
    """Django's own, but for those whom it lets in."""

    def user_can_authenticate(self, user: Any) -> bool:
        return True


class PermissionsOnly:
    """A backend as they were once: it authenticates nobody."""


def backends(settings: Any, *classes: type) -> list[str]:
    paths = [f"{cls.__module__}.{cls.__qualname__}" for cls in classes]
    settings.AUTHENTICATION_BACKENDS = paths
    return paths


@pytest.mark.django_db
def test_a_backend_with_a_look_up_of_its_own_is_asked_once_for_each_user(settings: Any) -> None:
    path, _ = backends(settings, OneByOne, ModelBackend)
    ann, bob = new_users(2)
    viewers = [signed_in(user, session_of(user, path)) for user in (ann, bob, ann)]
    OneByOne.asked = []
    assert today(viewers) == viewers
    assert sorted(OneByOne.asked) == sorted([ann.pk, bob.pk])
    User.objects.filter(pk=ann.pk).update(username="hidden")
    assert today(viewers) == [None, viewers[1], None]


@pytest.mark.django_db
def test_each_session_s_user_is_asked_of_the_backend_that_signed_them_in(settings: Any) -> None:
    tolerant, model = backends(settings, Tolerant, ModelBackend)
    ann, bob = new_users(2)
    viewers = [signed_in(ann, session_of(ann, tolerant)), signed_in(bob, session_of(bob, model))]
    User.objects.update(is_active=False)
    (now, gone) = today(viewers)
    assert now is not None
    assert gone is None


@pytest.mark.parametrize(("backend", "holds"), [(ModelBackend, False), (Tolerant, True), (OneByOne, False)])
@pytest.mark.django_db
def test_a_token_s_user_is_let_in_by_the_backends_or_not(settings: Any, backend: type, holds: bool) -> None:
    backends(settings, PermissionsOnly, backend)
    (ann,) = new_users(1)
    viewer = viewer_of(request_of(authorization=f"Bearer {create_token(ann, max_age=60)}"))
    assert today([viewer]) == [viewer]
    User.objects.update(is_active=False)
    assert (today([viewer]) == [None]) is not holds


@pytest.mark.django_db
def test_a_token_s_user_is_found_by_whichever_backend_knows_them(settings: Any) -> None:
    backends(settings, OneByOne, ModelBackend)
    ann = User.objects.create(username="hidden", password="one")
    assert viewer_of(request_of(authorization=f"Bearer {create_token(ann, max_age=60)}")).user == ann


@pytest.mark.django_db
def test_a_user_of_a_middleware_is_gone_with_the_session_that_they_came_with() -> None:
    staff, shown_as = new_users(2)
    session = session_of(staff)
    viewer = viewer_of(request_of(session, shown_as))
    assert today([viewer]) == [viewer]
    session.delete()
    assert today([viewer]) == [None]


@pytest.mark.django_db
def test_a_user_of_a_middleware_is_gone_with_their_password_too() -> None:
    (ann,) = new_users(1)
    viewer = viewer_of(request_of(None, ann))
    assert today([viewer]) == [viewer]
    _new_password(ann)
    assert today([viewer]) == [None]


@pytest.mark.django_db
@pytest.mark.parametrize("session", [True, False], ids=["with the session of a user", "without a session"])
def test_a_user_of_another_model_is_never_taken_for_the_user_who_has_the_same_key(
    session: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A middleware may set whom it likes as request.user; who has that key among the site's users is somebody else."""
    (ann,) = new_users(1)
    customer = Article(pk=ann.pk)
    monkeypatch.setattr(Article, "is_authenticated", True, raising=False)
    viewer = viewer_of(request_of(session_of(ann) if session else None, customer))
    assert viewer.key != viewer_key(ann, None)
    monkeypatch.setattr("livefeed.viewers.password_holds", lambda user, digest: True)
    assert today([viewer]) == [None]


@pytest.mark.django_db
def test_a_token_expires_while_a_stream_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    (ann,) = new_users(1)
    texts = [create_token(ann, max_age=60), create_token(None, ["job:1"], max_age=60), create_token(ann, max_age=600)]
    viewers = [viewer_of(request_of(authorization=f"Bearer {text}")) for text in texts]
    assert today(viewers) == viewers
    assert len({viewer.credential for viewer in viewers}) == 3  # two tokens of one user are two
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 61)
    assert today(viewers) == [None, None, viewers[2]]


def by_a_database(request: HttpRequest) -> Any:
    """Know a user by what a database of its own says, which can't answer what is asked with "broken"."""
    if _errors and request.headers["X-Key"] == "broken":
        raise _errors[-1]
    return User(pk=7 if request.headers["X-Key"] == "broken" else 8)


_errors: list[Exception] = []


@pytest.mark.parametrize("error", [DataError("7 secret"), ProgrammingError("7 secret"), OperationalError("7 secret")])
def test_an_authenticator_that_its_database_does_not_answer_spares_no_other_stream_the_look(
    error: Exception, settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.LIVEFEED_AUTHENTICATION = ["tests.test_viewers.by_a_database"]
    monkeypatch.setattr("tests.test_viewers._errors", [])
    broken, whole = (viewer_of(request_of(x_key=key)) for key in ("broken", "whole"))
    _errors.append(error)
    assert today([broken, whole]) == [None, whole]
    assert type(error).__name__ in caplog.text
    assert "secret" not in caplog.text


# -- a site without users ---------------------------------------------------------------------------------------------

WITHOUT_USERS = """
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="x",
    INSTALLED_APPS=["django.contrib.sessions", "livefeed"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    USE_TZ=True,
    ROOT_URLCONF="tests.custom_user.urls",
)
django.setup()
from django.contrib.sessions.backends.db import SessionStore
from django.core.management import call_command
from django.http import HttpRequest
from livefeed import create_token
from livefeed.access import grant
from livefeed.viewers import today, viewer_of

call_command("migrate", verbosity=0)
call_command("check", tags=["livefeed"])
request = HttpRequest()
request.session = SessionStore()
request.session["basket"] = 1
request.session.save()
visitor = viewer_of(request)
with_token = HttpRequest()
with_token.META["HTTP_AUTHORIZATION"] = "Bearer " + create_token(None, ["job:1"], max_age=60)
bearer = viewer_of(with_token)
assert (visitor.user, bearer.user) == (None, None)
assert today([visitor, bearer]) == [visitor, bearer]
assert list(grant(bearer, ["job:1", "job:2"]).names) == ["job:1"]
request.session.delete()
assert today([visitor, bearer]) == [None, bearer]
print("well")
"""


def test_a_site_without_users_has_visitors_with_sessions_and_tokens() -> None:
    out = run([sys.executable, "-W", "error", "-c", WITHOUT_USERS], env={"DJANGO_SETTINGS_MODULE": None}, limit=60)
    assert out.splitlines()[-1] == "well"


# -- what a viewer holds ----------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_nothing_secret_is_in_what_can_be_shown_of_a_viewer(settings: Any) -> None:
    (ann,) = new_users(1)
    text = create_token(ann, max_age=60)
    settings.LIVEFEED_AUTHENTICATION = [*Settings.AUTHENTICATION.default, f"{__name__}.by_header"]
    requests = [
        request_of(session_of(ann), ann),
        request_of(session_of(basket=1)),
        request_of(authorization=f"Bearer {text}"),
        request_of(x_name=ann.username, cookie="secret-cookie=1"),
    ]
    viewers = [viewer_of(request) for request in requests]
    shown = "".join(f"{viewer} {viewer!r} {viewer.proof!r}" for viewer in viewers)
    for secret in (text.split(".")[0], password_digest(ann), "secret-cookie", ann.username):
        assert secret not in shown
    assert not [viewer for viewer in viewers if viewer.session_key and viewer.session_key in shown]
    assert password_digest(ann) not in repr(read_token(text))


def by_header(request: HttpRequest) -> Any:
    """A site's own way to know a user."""
    return User.objects.filter(username=request.headers.get("X-Name", "")).first()


@pytest.mark.django_db
def test_what_is_kept_to_ask_again_is_small(settings: Any, record_property: Callable[[str, object], None]) -> None:
    """Besides the user, whom a rule gets to see and who is there for every kind."""
    settings.LIVEFEED_AUTHENTICATION = [*Settings.AUTHENTICATION.default, f"{__name__}.by_header"]
    (ann,) = new_users(1)
    names = [f"job:{n}" for n in range(50)]
    browser = {"user_agent": "Mozilla/5.0 " + "x" * 100, "accept_language": "en-GB,en;q=0.5", "sec_fetch_mode": "cors"}
    kinds = {
        "a session": lambda: request_of(session_of(ann), ann, **browser),
        "a token": lambda: request_of(authorization=f"Bearer {create_token(ann, max_age=60)}"),
        "a token for 50 topics": lambda: request_of(authorization=f"Bearer {create_token(ann, names, max_age=60)}"),
        "a callable": lambda: request_of(x_name=ann.username, **browser),
    }
    for kind, made in kinds.items():
        size = _bytes_of(made)
        record_property(f"bytes for {kind}", size)
        assert size < 12_000


def _bytes_of(made: Callable[[], HttpRequest], count: int = 50) -> int:
    """Return how much memory a viewer takes, its user left out."""
    requests = [made() for _ in range(count + 1)]
    viewer_of(requests.pop())
    kept = [None] * count
    gc.collect()
    tracemalloc.start()
    for n, request in enumerate(requests):
        kept[n] = replace(viewer_of(request), user=None)  # type: ignore[call-overload]
    requests.clear()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size // count
