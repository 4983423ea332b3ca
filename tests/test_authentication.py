"""Who sends a request: by livefeed's tokens, by sessions, by Django REST framework's classes, by a site's callables."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db import OperationalError
from django.http import HttpRequest
from django.test import AsyncClient, RequestFactory
from django.urls import reverse
from rest_framework.authentication import BaseAuthentication
from rest_framework.authtoken.models import Token
from rest_framework.exceptions import AuthenticationFailed as NotAuthenticated

from livefeed import apublish, create_token
from livefeed.authentication import Identity, ask, authenticate, kept, load
from livefeed.exceptions import AuthenticationFailed
from livefeed.roster import Roster
from livefeed.testing import EventStreamClient, open_stream
from livefeed.viewers import page_viewer, today, viewer_of
from tests.reading import eventually

pytest_plugins = ["tests.reading_fixtures"]

REVIEWS = "testapp.review"
JOB = "job:1"
DRF_TOKEN = "rest_framework.authentication.TokenAuthentication"
DRF_SESSION = "rest_framework.authentication.SessionAuthentication"

# -- authenticators as a site has them --------------------------------------------------------------------------------


def by_name(request: HttpRequest) -> Any:
    """Know a user by a header; the name "nobody" holds for none."""
    name = request.headers.get("X-Name")
    if name == "nobody":
        raise AuthenticationFailed("Nobody has this name.", 'Name realm="names"')
    return None if name is None else User.objects.get(username=name)


async def slowly_by_name(request: HttpRequest) -> Any:
    await asyncio.sleep(0)
    name = request.headers.get("X-Name")
    return None if name is None else await User.objects.aget(username=name)


def by_query(request: HttpRequest) -> Any:
    return User.objects.filter(username=request.GET.get("name", "")).first()


def by_session_data(request: HttpRequest) -> Any:
    """Know a user by what a login of the site's own kind left in the session."""
    return User.objects.filter(username=request.session.get("mine", "")).first()


def by_cookie(request: HttpRequest) -> Any:
    return User.objects.filter(username=request.COOKIES.get("mine", ""), is_active=request.is_secure()).first()


def broken(request: HttpRequest) -> Any:
    raise ValueError(f"can't read {request.headers['X-Name']}")


def without_database(request: HttpRequest) -> Any:
    raise OperationalError("away")


def forbidding(request: HttpRequest) -> Any:
    raise PermissionDenied("secret")


def mistaken(request: HttpRequest) -> Any:
    return "ann"


def unsaved(request: HttpRequest) -> Any:
    return User(username="new")


def anybody(request: HttpRequest) -> Any:
    return AnonymousUser()


class ByKey(BaseAuthentication):
    """An API key in a header."""

    def authenticate(self, request: Any) -> Any:
        key = request.META.get("HTTP_X_API_KEY")
        if key is None:
            return None
        user = User.objects.filter(username=key, is_active=True).first()
        if user is None:
            raise NotAuthenticated("There is no such key.")
        return user, key

    def authenticate_header(self, request: Any) -> str:
        return "Api-Key"


class Silent(ByKey):
    """One that names no challenge, as a class does that says nothing of it."""

    def authenticate_header(self, request: Any) -> None:  # type: ignore[override]
        return None


class Broken(ByKey):
    def authenticate(self, request: Any) -> Any:
        raise KeyError(request.META["HTTP_X_API_KEY"])


def listed(settings: Any, *authenticators: Any) -> None:
    names = [each if isinstance(each, str) else f"{__name__}.{each.__name__}" for each in authenticators]
    settings.LIVEFEED_AUTHENTICATION = names


def request_with(**headers: str) -> HttpRequest:
    return RequestFactory().get("/", headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture
def ann(db: None) -> User:
    return User.objects.create_user("ann", password="one")


def user_of(request: HttpRequest) -> Any:
    identity = authenticate(request)
    return None if identity is None else identity.user


# -- which of them is asked -------------------------------------------------------------------------------------------


def test_without_a_word_nobody_is_found(db: None) -> None:
    assert authenticate(request_with()) is None


@pytest.mark.parametrize("authenticator", [by_name, slowly_by_name])
def test_a_callable_says_who_it_is(settings: Any, ann: User, authenticator: Any) -> None:
    listed(settings, authenticator)
    assert user_of(request_with(x_name="ann")) == ann
    assert user_of(request_with()) is None


def test_the_first_that_answers_wins(settings: Any, ann: User) -> None:
    bob = User.objects.create_user("bob")
    request = RequestFactory().get("/?name=bob", headers={"x-name": "ann"})
    listed(settings, by_name, by_query)
    assert user_of(request) == ann
    listed(settings, by_query, by_name)
    assert user_of(request) == bob
    listed(settings)
    assert user_of(request) is None


def test_those_behind_one_whose_credentials_fail_are_not_asked(settings: Any, ann: User) -> None:
    listed(settings, by_name, by_query)
    with pytest.raises(AuthenticationFailed, match="Nobody has this name"):
        authenticate(RequestFactory().get("/?name=ann", headers={"x-name": "nobody"}))


def test_tokens_are_asked_before_sessions(ann: User) -> None:
    request = request_with(authorization=f"Bearer {create_token(ann, max_age=60)}")
    request.user = User(pk=8)
    assert user_of(request) == ann


@pytest.mark.parametrize(
    "header", ["Basic YTpi", "Bearer", "Bearer eyJ.x.y", "livefeed_x", "Token livefeed_x", "", "ä"]
)
def test_an_authorization_of_others_is_nobody_s(db: None, header: str) -> None:
    assert authenticate(request_with(authorization=header)) is None


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER   {} "])
def test_the_scheme_of_a_token_is_written_as_one_likes(ann: User, form: str) -> None:
    text = create_token(ann, max_age=60)
    assert user_of(request_with(authorization=form.format(text))) == ann


# -- what fails -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("authenticator", [broken, mistaken, unsaved])
def test_an_authenticator_that_fails_lets_nobody_in_and_tells_nothing(
    settings: Any, db: None, authenticator: Any, caplog: pytest.LogCaptureFixture
) -> None:
    listed(settings, authenticator)
    with pytest.raises(AuthenticationFailed) as failed:
        authenticate(request_with(x_name="secret"))
    assert authenticator.__name__ in caplog.text
    assert "secret" not in caplog.text + str(failed.value)
    assert failed.value.__suppress_context__


def test_a_class_that_fails_lets_nobody_in_and_tells_nothing(
    settings: Any, db: None, caplog: pytest.LogCaptureFixture
) -> None:
    listed(settings, Broken)
    with pytest.raises(AuthenticationFailed):
        authenticate(request_with(x_api_key="secret"))
    assert "Broken failed with KeyError" in caplog.text
    assert "secret" not in caplog.text


def test_a_permission_that_is_denied_is_a_failure(settings: Any) -> None:
    listed(settings, forbidding)
    with pytest.raises(AuthenticationFailed) as failed:
        authenticate(request_with())
    assert "secret" not in str(failed.value)


def test_a_database_that_is_away_says_nothing_of_who_it_is(settings: Any) -> None:
    listed(settings, without_database)
    with pytest.raises(OperationalError):
        authenticate(request_with())


@pytest.mark.parametrize("challenge", ['Api realm="a\nb"', "Äpi", "\0"])
def test_a_challenge_that_is_no_header_is_replaced(challenge: str) -> None:
    assert AuthenticationFailed("No.", challenge).challenge == "Bearer"


@pytest.mark.parametrize("path", ["nowhere.nothing", f"{__name__}.REVIEWS", f"{__name__}.AsyncClient"])
def test_what_is_no_authenticator_is_refused(settings: Any, path: str) -> None:
    settings.LIVEFEED_AUTHENTICATION = [path]
    with pytest.raises(ImproperlyConfigured, match=path):
        authenticate(request_with())


# -- tokens -----------------------------------------------------------------------------------------------------------


def identity_of(text: str) -> Identity:
    identity = authenticate(request_with(authorization=f"Bearer {text}"))
    assert identity is not None
    return identity


def test_a_token_brings_its_user_and_its_scope(ann: User) -> None:
    identity = identity_of(create_token(ann, [JOB], max_age=60))
    assert (identity.user, identity.scope) == (ann, {JOB})
    assert identity_of(create_token(ann, max_age=60)).scope is None


def test_a_token_for_nobody_brings_its_scope(db: None) -> None:
    identity = identity_of(create_token(None, [JOB], max_age=60))
    assert (identity.user.is_authenticated, identity.scope) == (False, {JOB})


@pytest.mark.parametrize(
    "end",
    [
        lambda user: (user.set_password("two"), user.save()),
        lambda user: User.objects.update(is_active=False),
        lambda user: User.objects.all().delete(),
    ],
)
def test_a_token_ends_with_password_activity_and_user(ann: User, end: Any) -> None:
    text = create_token(ann, max_age=60)
    assert identity_of(text).user == ann
    end(ann)
    with pytest.raises(AuthenticationFailed, match="The token's user is no more, or has a new password"):
        identity_of(text)


def test_a_token_made_under_an_older_key_is_its_user_s(ann: User, settings: Any) -> None:
    settings.SECRET_KEY = "older"
    text = create_token(ann, max_age=60)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "newer", ["older"]
    assert identity_of(text).user == ann


def test_a_token_asks_the_database_once(ann: User, django_assert_num_queries: Any) -> None:
    text = create_token(ann, max_age=60)
    with django_assert_num_queries(1):
        viewer_of(request_with(authorization=f"Bearer {text}"))


def test_a_token_stands_for_itself_whatever_cookie_is_sent_with_it(ann: User) -> None:
    request = request_with(authorization=f"Bearer {create_token(ann, max_age=60)}")
    session = SessionStore()
    session.save()
    request.session = SessionStore(session.session_key)
    viewer = viewer_of(request)
    assert (viewer.session_key, viewer.by_session, viewer.key) == (None, False, f"user:{ann.pk}")


# -- Django REST framework --------------------------------------------------------------------------------------------


def test_the_token_authentication_of_rest_framework(settings: Any, ann: User) -> None:
    settings.LIVEFEED_AUTHENTICATION = [DRF_TOKEN]
    key = Token.objects.create(user=ann).key
    assert user_of(request_with(authorization=f"Token {key}")) == ann
    assert user_of(request_with(authorization=f"Bearer {key}")) is None
    with pytest.raises(AuthenticationFailed, match="Invalid token") as failed:
        authenticate(request_with(authorization=f"Token {key}x"))
    assert failed.value.challenge == "Token"
    User.objects.update(is_active=False)
    with pytest.raises(AuthenticationFailed, match="inactive or deleted"):
        authenticate(request_with(authorization=f"Token {key}"))


def test_the_session_authentication_of_rest_framework(settings: Any, ann: User) -> None:
    settings.LIVEFEED_AUTHENTICATION = [DRF_SESSION]
    request = request_with()
    assert user_of(request) is None
    request.user = AnonymousUser()
    assert user_of(request) is None
    request.user = ann
    assert user_of(request) == ann


def test_a_class_of_one_s_own(settings: Any, ann: User) -> None:
    listed(settings, ByKey)
    assert user_of(request_with()) is None
    assert user_of(request_with(x_api_key="ann")) == ann
    with pytest.raises(AuthenticationFailed, match="There is no such key") as failed:
        authenticate(request_with(x_api_key="bob"))
    assert failed.value.challenge == "Api-Key"


def test_a_class_without_a_challenge_gets_ours(settings: Any, db: None) -> None:
    listed(settings, Silent)
    with pytest.raises(AuthenticationFailed) as failed:
        authenticate(request_with(x_api_key="bob"))
    assert failed.value.challenge.startswith("Bearer")


# -- asked again ------------------------------------------------------------------------------------------------------


def again(request: HttpRequest) -> Any:
    """Return who sent a request, as it is known a while later."""
    (viewer,) = today([viewer_of(request)])
    return viewer


@pytest.mark.parametrize("authenticator", [by_name, slowly_by_name])
def test_a_callable_is_asked_again(settings: Any, ann: User, authenticator: Any) -> None:
    listed(settings, authenticator)
    viewer = viewer_of(request_with(x_name="ann"))
    assert today([viewer]) == [viewer]
    User.objects.all().delete()
    assert today([viewer]) == [None]


def test_who_is_somebody_else_by_now_is_gone(settings: Any, ann: User) -> None:
    listed(settings, by_name)
    viewer = viewer_of(request_with(x_name="ann"))
    User.objects.update(username="old")
    User.objects.create_user("ann")
    assert today([viewer]) == [None]


def test_the_query_and_the_cookies_are_kept(settings: Any, ann: User) -> None:
    listed(settings, by_query)
    assert again(RequestFactory().get("/?name=ann")).user == ann
    listed(settings, by_cookie)
    assert again(RequestFactory().get("/", headers={"cookie": "mine=ann"}, secure=True)).user == ann


def test_the_session_is_there_as_it_is_now(settings: Any, ann: User) -> None:
    listed(settings, by_session_data)
    session = SessionStore()
    session["mine"] = "ann"
    session.save()
    request = request_with()
    request.session = SessionStore(session.session_key)
    viewer = viewer_of(request)
    assert (viewer.session_key, viewer.by_session) == (session.session_key, False)
    assert today([viewer]) == [viewer]
    session.delete()
    assert today([viewer]) == [None]


def test_the_classes_of_rest_framework_are_asked_again(settings: Any, ann: User) -> None:
    settings.LIVEFEED_AUTHENTICATION = [DRF_TOKEN, f"{__name__}.ByKey"]
    key = Token.objects.create(user=ann).key
    viewers = [viewer_of(request_with(authorization=f"Token {key}")), viewer_of(request_with(x_api_key="ann"))]
    assert today(viewers) == viewers
    Token.objects.all().delete()
    assert today(viewers) == [None, viewers[1]]
    User.objects.update(is_active=False)
    assert today(viewers) == [None, None]


def test_what_an_authenticator_can_t_ask_the_database_is_not_decided(
    settings: Any, ann: User, monkeypatch: Any
) -> None:
    listed(settings, by_name)
    viewer = viewer_of(request_with(x_name="ann"))
    load.cache_clear()
    monkeypatch.setattr(f"{__name__}.by_name", without_database)
    monkeypatch.setattr("livefeed.transactions.database_is_away", lambda: True)
    with pytest.raises(OperationalError):
        today([viewer])
    load.cache_clear()


def test_an_authenticator_is_asked_once_for_all_streams_that_show_the_same(
    settings: Any, ann: User, django_assert_num_queries: Any
) -> None:
    listed(settings, by_name)
    viewers = [viewer_of(request_with(x_name="ann")) for _ in range(100)]
    with django_assert_num_queries(1):
        assert today(viewers) == viewers


def test_an_authenticator_may_say_that_it_is_anybody(settings: Any, db: None) -> None:
    listed(settings, anybody)
    viewer = viewer_of(request_with())
    assert (viewer.is_user, viewer.key) == (False, "anonymous")
    assert today([viewer]) == [viewer]


def test_only_what_may_be_needed_is_kept_of_a_request(rf: RequestFactory) -> None:
    request = rf.get(
        "/?topic=a", headers={"x-key": "k", "accept": "a", "sec-fetch-mode": "cors", "cookie": "a=b", "referer": "r"}
    )
    assert dict(kept("path", request).meta) == {
        "HTTP_X_KEY": "k",
        "HTTP_COOKIE": "a=b",
        "QUERY_STRING": "topic=a",
        "REMOTE_ADDR": "127.0.0.1",
        "SCRIPT_NAME": "",
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
    }


# -- pages and the view -----------------------------------------------------------------------------------------------


def test_a_page_is_rendered_for_anybody_where_credentials_do_not_hold(settings: Any, db: None) -> None:
    listed(settings, by_name)
    assert page_viewer(request_with(x_name="nobody")).is_user is False


async def get(client: AsyncClient, *topics: str, **headers: str) -> Any:
    sent = {"accept": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await client.get(reverse("livefeed:stream"), {"topic": topics}, headers=sent)


@sync_to_async
def reviewer(name: str = "ann") -> User:
    """Make a user who may read reviews."""
    user = User.objects.create_user(name, password="one")
    user.user_permissions.add(Permission.objects.get(codename="view_review"))
    return user


async def test_a_token_that_was_spoiled_is_401_with_a_challenge(
    roster: Roster, async_client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    text = create_token(await reviewer(), max_age=60)
    for topic in (REVIEWS, "plain"):  # also where it would not be needed: a client should know
        response = await get(async_client, topic, authorization=f"Bearer {text}x")
        assert (response.status_code, response["Content-Type"]) == (401, "application/problem+json")
        assert response["WWW-Authenticate"] == 'Bearer error="invalid_token"'
        assert text[:20] not in response.content.decode() + caplog.text


async def test_an_authorization_that_nobody_claims_only_matters_where_all_is_refused(
    roster: Roster, async_client: AsyncClient
) -> None:
    assert (await get(async_client, "plain", authorization="Basic YTpi")).status_code == 200
    assert (await get(async_client, REVIEWS, authorization="Basic YTpi")).status_code == 401


async def test_a_token_that_holds_and_opens_nothing_of_it_is_404(roster: Roster, async_client: AsyncClient) -> None:
    text = create_token(None, [JOB], max_age=60)
    assert (await get(async_client, REVIEWS, authorization=f"Bearer {text}")).status_code == 404


async def test_the_challenge_is_the_authenticator_s(roster: Roster, async_client: AsyncClient, settings: Any) -> None:
    listed(settings, by_name, ByKey)
    response = await get(async_client, "plain", x_name="nobody")
    assert (response.status_code, response["WWW-Authenticate"]) == (401, 'Name realm="names"')
    assert response.json()["detail"] == "Nobody has this name."
    response = await get(async_client, "plain", x_api_key="wrong")
    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Api-Key")


async def test_a_database_that_is_away_while_it_is_asked_who_it_is_is_no_401(
    roster: Roster, async_client: AsyncClient, settings: Any
) -> None:
    listed(settings, without_database)
    assert (await get(async_client, "plain")).status_code == 503


async def closing(stream: EventStreamClient) -> Any:
    """Return what a stream says at its end."""
    while (event := await stream.next()).type != "livefeed-closing":
        pass
    return event.json


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


async def test_a_stream_by_token_reads_what_its_user_may_and_no_more_than_the_token_says(roster: Roster) -> None:
    user = await reviewer()
    async with open_stream(REVIEWS, JOB, "plain", headers=bearer(create_token(user, max_age=60))) as stream:
        assert (await stream.next()).json["topics"] == [REVIEWS, "plain"]
        await apublish(REVIEWS, {"n": 1})
        assert (await stream.next()).json == {"n": 1}
    narrow = create_token(user, [REVIEWS, JOB], max_age=60)
    async with open_stream(REVIEWS, JOB, "plain", headers=bearer(narrow)) as stream:
        opening = (await stream.next()).json
        assert (opening["topics"], opening["refused"]) == ([REVIEWS, JOB], ["plain"])


async def test_a_token_does_not_overrule_a_rule(roster: Roster) -> None:
    stranger = await User.objects.acreate_user("bob")
    text = create_token(stranger, [REVIEWS, "plain"], max_age=60)
    async with open_stream(REVIEWS, "plain", headers=bearer(text)) as stream:
        assert (await stream.next()).json["topics"] == ["plain"]


async def _new_password(user: User) -> None:
    user.set_password("two")
    await user.asave()


async def _deactivate(user: User) -> None:
    await User.objects.filter(pk=user.pk).aupdate(is_active=False)


async def _delete(user: User) -> None:
    await User.objects.filter(pk=user.pk).adelete()


@pytest.mark.parametrize("end", [_new_password, _deactivate, _delete], ids=lambda end: end.__name__.strip("_"))
async def test_a_stream_by_token_ends_with_what_it_stands_on(roster: Roster, settings: Any, end: Any) -> None:
    settings.LIVEFEED_RECHECK_INTERVAL = 0.05
    user, other = await reviewer(), await reviewer("bob")
    async with (
        open_stream(REVIEWS, headers=bearer(create_token(user, max_age=60))) as stream,
        open_stream(REVIEWS, headers=bearer(create_token(other, max_age=60))) as bystander,
    ):
        await stream.next()
        await bystander.next()
        await end(user)
        assert await closing(stream) == {"reason": "revoked"}
        await apublish(REVIEWS, {"n": 1})
        assert (await bystander.next()).json == {"n": 1}


async def test_one_token_expires_and_the_user_s_other_stream_goes_on(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_RECHECK_INTERVAL = 0.05
    user = await reviewer()
    short, long = create_token(user, max_age=1.5), create_token(user, max_age=60)
    async with (
        open_stream(REVIEWS, headers=bearer(short)) as stream,
        open_stream(REVIEWS, headers=bearer(long)) as other,
    ):
        await stream.next()
        await other.next()
        assert await closing(stream) == {"reason": "revoked"}
        await apublish(REVIEWS, {"n": 1})
        assert (await other.next()).json == {"n": 1}


@pytest.mark.parametrize("authenticator", [by_name, slowly_by_name])
async def test_a_callable_is_asked_again_and_again_for_an_open_stream(
    roster: Roster, settings: Any, authenticator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LIVEFEED_RECHECK_INTERVAL = 0.02
    listed(settings, authenticator)
    asked: list[str] = []

    def counted(path: str, request: HttpRequest) -> Any:
        asked.append(path)
        return ask(path, request)

    monkeypatch.setattr("livefeed.viewers.ask", counted)
    user = await reviewer()
    async with open_stream(REVIEWS, headers={"x-name": "ann"}) as stream:
        assert (await stream.next()).json["topics"] == [REVIEWS]
        await eventually(lambda: len(asked) > 3, "the callable was asked a few times")
        await apublish(REVIEWS, {"n": 1})
        assert (await stream.next()).json == {"n": 1}
        await user.adelete()
        assert await closing(stream) == {"reason": "revoked"}


async def test_a_stream_of_rest_framework_s_token_ends_with_the_token(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_RECHECK_INTERVAL = 0.05
    settings.LIVEFEED_AUTHENTICATION = [DRF_TOKEN]
    key = (await Token.objects.acreate(user=await reviewer())).key
    async with open_stream(REVIEWS, headers={"authorization": f"Token {key}"}) as stream:
        assert (await stream.next()).json["topics"] == [REVIEWS]
        await apublish(REVIEWS, {"n": 1})
        assert (await stream.next()).json == {"n": 1}
        await Token.objects.all().adelete()
        assert await closing(stream) == {"reason": "revoked"}


async def test_a_stream_of_rest_framework_s_session_ends_with_the_session(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_RECHECK_INTERVAL = 0.05
    settings.LIVEFEED_AUTHENTICATION = [DRF_SESSION]
    async with open_stream(REVIEWS, user=await reviewer()) as stream:
        assert (await stream.next()).json["topics"] == [REVIEWS]
        await apublish(REVIEWS, {"n": 1})
        assert (await stream.next()).json == {"n": 1}
        await SessionStore.get_model_class().objects.all().adelete()
        assert await closing(stream) == {"reason": "revoked"}
