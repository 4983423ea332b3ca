"""What viewers may read, and whether that still holds. Closed: what no rule opens is refused."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import AnonymousUser, Group, Permission, User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import DataError, InterfaceError, OperationalError, ProgrammingError
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django.utils import timezone

from livefeed import LiveFeed, access, apublish
from livefeed.access import grant, rechecked
from livefeed.authentication import Account
from livefeed.roster import Roster
from livefeed.testing import EventStreamClient, open_stream
from livefeed.tokens import password_digest
from livefeed.topics import sign_topic, signature_holds
from livefeed.viewers import Viewer, viewer_of

pytest_plugins = ["tests.reading_fixtures"]

REVIEWS = "testapp.review"
ANONYMOUS = Viewer(AnonymousUser(), None, "127.0.0.1")


def session_of(user: User, **data: Any) -> SessionStore:
    """Return a stored session in which a user is signed in."""
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.update(data)
    session.save()
    return session


def signed_in(user: User, session: SessionStore | None = None) -> Viewer:
    return Viewer(user, (session or session_of(user)).session_key, "127.0.0.1", by_session=True)


def may_read(user: Any, topic: str) -> bool:
    return access.may_read(Viewer(user, None, "127.0.0.1"), topic)


def lost(streams: Sequence[tuple[Viewer, dict[str, str]]]) -> list[int]:
    """Return which streams lost a right, by index."""
    return [index for index, viewer in enumerate(rechecked(streams)) if viewer is None]


def allow(user: User, codename: str = "view_review") -> None:
    user.user_permissions.add(Permission.objects.get(codename=codename))


# -- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_feed_that_says_nothing_is_open_to_nobody_but_who_has_the_view_permission() -> None:
    user, staff = User.objects.create_user("ann"), User.objects.create_user("bob")
    allow(staff)
    assert not may_read(AnonymousUser(), REVIEWS)
    assert not may_read(user, REVIEWS)
    assert may_read(staff, REVIEWS)
    assert may_read(User.objects.create_superuser("root"), REVIEWS)


def test_a_feed_without_a_model_that_says_nothing_is_closed(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    class Silent(LiveFeed):
        name = "silent"

    with_feed(Silent)
    assert not may_read(User(pk=1, is_superuser=True), "silent")


def test_a_rule_is_asked_with_the_topic(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    class Owned(LiveFeed):
        name = "owned"

        def has_view_permission(self, user: Any, topic: str) -> bool:
            return topic == f"owned:{user.pk}"

    with_feed(Owned)
    assert may_read(User(pk=7), "owned:7")
    assert not may_read(User(pk=7), "owned:8")
    assert not may_read(User(pk=7), "owned")


def test_of_an_inherited_rule_and_a_narrower_one_of_one_s_own_the_nearer_holds_in_bulk_or_not(
    with_feed: Callable[[type[LiveFeed]], None],
) -> None:
    class Wide(LiveFeed):
        name = "wide"

        def get_view_permissions(self, asked: Any) -> list[bool]:
            return [True for _ in asked]

    class Narrow(Wide):
        name = "narrow"

        def has_view_permission(self, user: Any, topic: str) -> bool:
            return bool(user.pk == 7)

    class WideAgain(Narrow):
        name = "again"

        def get_view_permissions(self, asked: Any) -> list[bool]:
            return [user.pk in {7, 8} for user, _ in asked]

    class Inheriting(Narrow):
        name = "inheriting"
        public = True

    for feed in (Wide, Narrow, WideAgain, Inheriting):
        with_feed(feed)
    opened = {
        name: [pk for pk in (7, 8, 9) if may_read(User(pk=pk), name)]
        for name in ("wide", "narrow", "again", "inheriting")
    }
    assert opened == {"wide": [7, 8, 9], "narrow": [7], "again": [7, 8], "inheriting": [7]}


def by_key(key: str) -> Any:
    """Know a user by a key that opens more or less; without a user it is a guest's."""
    return SimpleNamespace(pk=7 if "user" in key else None, is_authenticated="user" in key, may="wide" in key)


def authenticate_by_key(request: HttpRequest) -> Any:
    return by_key(request.headers["X-Key"])


@pytest.mark.parametrize("keys", [("user narrow", "user wide"), ("guest narrow", "guest wide")], ids=["user", "guest"])
def test_what_one_key_opens_is_no_answer_for_another_of_the_same_user(
    with_feed: Callable[[type[LiveFeed]], None], rf: RequestFactory, settings: Any, keys: tuple[str, str]
) -> None:
    class Keyed(LiveFeed):
        name = "keyed"

        def has_view_permission(self, user: Any, topic: str) -> bool:
            return bool(user.may)

    with_feed(Keyed)
    settings.LIVEFEED_AUTHENTICATION = ["tests.test_access.authenticate_by_key"]
    streams = [(viewer_of(rf.get("/", headers={"x-key": key})), {"keyed": "keyed"}) for key in keys]
    assert lost(streams) == [0]
    assert lost(streams[::-1]) == [1]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("answers", "complaint"),
    [
        (lambda asked: dict.fromkeys(asked, False), "returned a dict"),
        (lambda asked: "no"[: len(asked)], "returned a str"),
        (lambda asked: [True, *(True for _ in asked)], "gave 2 answers to 1 questions"),
        (lambda asked: [user.has_perm for user, _ in asked], "which was not called"),
        (lambda asked: [slowly(False) for _ in asked], ""),
    ],
    ids=["a dict", "text", "too many", "a method", "coroutines"],
)
def test_what_is_no_list_of_answers_opens_nothing(
    with_feed: Callable[[type[LiveFeed]], None], answers: Any, complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(LiveFeed):
        name = "odd"

        def get_view_permissions(self, asked: Any) -> Any:
            return answers(asked)

    with_feed(Odd)
    assert may_read(User(pk=7, is_superuser=True), "odd") is False
    assert complaint in caplog.text


async def slowly(answer: bool) -> bool:
    return answer


@pytest.mark.django_db
def test_a_rule_that_forgot_to_call_opens_nothing_and_one_that_asks_a_coroutine_in_bulk_is_waited_for(
    with_feed: Callable[[type[LiveFeed]], None], caplog: pytest.LogCaptureFixture
) -> None:
    class Forgetful(LiveFeed):
        name = "forgetful"

        def has_view_permission(self, user: Any, topic: str) -> Any:
            return user.has_perm

    class InBulk(LiveFeed):
        name = "bulk"

        async def has_view_permission(self, user: Any, topic: str) -> bool:
            return bool(user.pk == 7)

        def get_view_permissions(self, asked: Any) -> Any:
            return super().get_view_permissions(asked)

    with_feed(Forgetful)
    with_feed(InBulk)
    assert may_read(User(pk=7, is_superuser=True), "forgetful") is False
    assert "which was not called" in caplog.text
    assert [may_read(User(pk=pk), "bulk") for pk in (7, 8)] == [True, False]


@pytest.mark.parametrize("answer", [None, 0, "", []])
def test_anything_that_is_not_true_is_no(with_feed: Callable[[type[LiveFeed]], None], answer: object) -> None:
    class Unclear(LiveFeed):
        name = "unclear"

        def has_view_permission(self, user: Any, topic: str) -> Any:
            return answer

    with_feed(Unclear)
    assert may_read(AnonymousUser(), "unclear") is False


def test_a_rule_that_fails_opens_nothing(
    with_feed: Callable[[type[LiveFeed]], None], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(LiveFeed):
        name = "broken"

        def has_view_permission(self, user: Any, topic: str) -> bool:
            raise ZeroDivisionError("oops")

    with_feed(Broken)
    assert not may_read(User(pk=1, is_superuser=True), "broken")
    assert "Broken.has_view_permission failed" in caplog.text


@pytest.mark.parametrize("fails", [False, True])
def test_a_rule_may_be_a_coroutine(
    with_feed: Callable[[type[LiveFeed]], None], fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow(LiveFeed):
        name = "slow"

        async def has_view_permission(self, user: Any, topic: str) -> bool:
            await asyncio.sleep(0)
            if fails:
                raise ZeroDivisionError("oops")
            return True

    with_feed(Slow)
    assert may_read(AnonymousUser(), "slow") is not fails


def test_a_topic_that_no_feed_owns_is_nobody_s() -> None:
    assert not may_read(User(pk=1, is_superuser=True), "unowned")


# -- signed names -----------------------------------------------------------------------------------------------------


def test_each_name_is_decided_by_itself_in_the_order_of_asking() -> None:
    mine = sign_topic("unowned", ANONYMOUS.key)
    granted = grant(ANONYMOUS, ["nobody.knows", mine, "plain", "other~1~forged"])
    assert granted.names == {"unowned": mine, "plain": "plain"}
    assert granted.refused == ["nobody.knows", "other~1~forged"]


def test_a_signed_name_is_good_for_its_viewer_only() -> None:
    name = sign_topic("unowned", "user:7")
    assert grant(Viewer(User(pk=7), "s", "a"), [name]).names
    assert not grant(Viewer(User(pk=8), "s", "a"), [name]).names
    assert not grant(ANONYMOUS, [name]).names
    assert not grant(Viewer(AnonymousUser(), "user:7", "a"), [name]).names


def test_a_session_can_t_make_itself_a_user() -> None:
    assert Viewer(AnonymousUser(), "7", "a").key != Viewer(User(pk=7), None, "a").key


@pytest.mark.parametrize(
    "spoil",
    [
        lambda name: name.replace("unowned", "other"),
        lambda name: name[:-1],
        lambda name: name + "x",
        lambda name: "~".join([name.split("~")[0], "zzzzzz", name.split("~")[2]]),
        lambda name: name.split("~")[0],
        lambda name: name.split("~")[0] + "~",
        lambda name: name + "~" + name,
    ],
)
def test_a_name_that_was_changed_is_worth_nothing(spoil: Callable[[str], str]) -> None:
    name = sign_topic("unowned", ANONYMOUS.key)
    assert grant(ANONYMOUS, [name]).names
    assert not grant(ANONYMOUS, [spoil(name)]).names


def test_a_signed_name_expires(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.LIVEFEED_SIGNATURE_SECONDS = 60.0
    name = sign_topic("unowned", ANONYMOUS.key)
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 55)
    assert signature_holds(name, ANONYMOUS.key)
    monkeypatch.setattr("time.time", lambda: now + 65)
    assert not signature_holds(name, ANONYMOUS.key)
    assert not grant(ANONYMOUS, [name]).names


def test_a_signature_opens_no_topic_that_a_feed_owns() -> None:
    assert not grant(ANONYMOUS, [sign_topic(REVIEWS, ANONYMOUS.key)]).names


def test_a_feed_s_topic_needs_no_signature_that_holds() -> None:
    """The tag signs every name; a feed's own rule decides, today, whatever became of the signature."""
    assert grant(ANONYMOUS, ["plain~1~forged"]).names == {"plain": "plain~1~forged"}


# -- rights that end --------------------------------------------------------------------------------------------------


def _log_out(user: User, session: SessionStore) -> None:
    session.flush()


def _expire(user: User, session: SessionStore) -> None:
    Session.objects.update(expire_date=timezone.now() - datetime.timedelta(seconds=1))


def _change_password(user: User, session: SessionStore) -> None:
    user.set_password("another")
    user.save()


def _deactivate(user: User, session: SessionStore) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def _delete(user: User, session: SessionStore) -> None:
    User.objects.filter(pk=user.pk).delete()


def _lose_permission(user: User, session: SessionStore) -> None:
    user.user_permissions.clear()


def _leave_group(user: User, session: SessionStore) -> None:
    user.groups.clear()
    user.user_permissions.clear()


def _remove_backend(user: User, session: SessionStore) -> None:
    stored = SessionStore(session.session_key)
    stored[BACKEND_SESSION_KEY] = "gone.Backend"
    stored.save()


ENDS = [
    _log_out,
    _expire,
    _change_password,
    _deactivate,
    _delete,
    _lose_permission,
    _leave_group,
    _remove_backend,
]
ENDS_OF_THE_USER = [_deactivate, _delete, _lose_permission]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__.strip("_"))
@pytest.mark.django_db
def test_a_right_that_ended_is_noticed(end: Callable[[User, SessionStore], None]) -> None:
    user, other = User.objects.create_user("ann"), User.objects.create_user("bob")
    allow(user)
    allow(other)
    session = session_of(user)
    streams = [(signed_in(other), {REVIEWS: REVIEWS}), (signed_in(user, session), {REVIEWS: REVIEWS})]
    if end is not _expire:
        assert lost(streams) == []
        end(user, session)
        assert lost(streams) == [1]
    else:
        end(user, session)
        assert lost(streams) == [0, 1]


@pytest.mark.django_db
def test_who_is_signed_out_loses_public_topics_too_and_comes_back_as_somebody_else() -> None:
    user = User.objects.create_user("ann")
    session = session_of(user)
    streams = [(signed_in(user, session), {"plain": "plain"})]
    assert lost(streams) == []
    session.flush()
    assert lost(streams) == [0]


@pytest.mark.parametrize("end", ENDS_OF_THE_USER, ids=lambda end: end.__name__.strip("_"))
@pytest.mark.django_db
def test_a_user_that_came_by_token_loses_rights_too(end: Callable[[User, SessionStore], None]) -> None:
    user = User.objects.create_user("ann")
    allow(user)
    streams = [(Viewer(user, None, "127.0.0.1"), {REVIEWS: REVIEWS})]
    assert lost(streams) == []
    end(user, SessionStore())
    assert lost(streams) == [0]


@pytest.mark.django_db
def test_a_permission_of_a_group_is_lost_with_the_group() -> None:
    user, group = User.objects.create_user("ann"), Group.objects.create(name="editors")
    group.permissions.add(Permission.objects.get(codename="view_review"))
    user.groups.add(group)
    streams = [(signed_in(user), {REVIEWS: REVIEWS})]
    assert lost(streams) == []
    group.permissions.clear()
    assert lost(streams) == [0]


def test_a_signature_that_expired_ends_the_stream_it_opened(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.LIVEFEED_SIGNATURE_SECONDS = 60.0
    name = sign_topic("unowned", ANONYMOUS.key)
    streams = [(ANONYMOUS, {"unowned": name}), (ANONYMOUS, {"plain": "plain"})]
    assert lost(streams) == []
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 65)
    assert lost(streams) == [0]


def test_one_topic_that_is_lost_ends_the_whole_stream(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    class Fickle(LiveFeed):
        name = "fickle"
        opened = True

        def has_view_permission(self, user: Any, topic: str) -> bool:
            return Fickle.opened

    with_feed(Fickle)
    streams = [(ANONYMOUS, {"plain": "plain", "fickle": "fickle"}), (ANONYMOUS, {"plain": "plain"})]
    assert lost(streams) == []
    Fickle.opened = False
    assert lost(streams) == [0]


@pytest.mark.django_db
def test_a_thousand_streams_of_one_user_ask_once(
    with_feed: Callable[[type[LiveFeed]], None], django_assert_max_num_queries: Any
) -> None:
    class Counted(LiveFeed):
        name = "counted"
        asked = 0

        def has_view_permission(self, user: Any, topic: str) -> bool:
            Counted.asked += 1
            return True

    with_feed(Counted)
    viewer = signed_in(User.objects.create_user("ann"))
    with django_assert_max_num_queries(5):
        assert lost([(viewer, {"counted": "counted"})] * 1000) == []
    assert Counted.asked == 1


@pytest.mark.django_db
def test_looking_again_never_writes_to_the_session() -> None:
    user = User.objects.create_user("ann")
    session = session_of(user)
    before = Session.objects.get().expire_date
    assert lost([(signed_in(user, session), {"plain": "plain"})]) == []
    assert Session.objects.get().expire_date == before
    Session.objects.all().delete()
    assert lost([(signed_in(user, session), {"plain": "plain"})]) == [0]
    assert not Session.objects.exists()


# -- open streams -----------------------------------------------------------------------------------------------------


async def closing(stream: EventStreamClient) -> Any:
    """Return what a stream says at its end."""
    while (event := await stream.next()).type != "livefeed-closing":
        pass
    with pytest.raises(EOFError):
        await stream.next()
    return event.json


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__.strip("_"))
async def test_a_stream_is_closed_within_the_interval_after_its_right_ended(
    roster: Roster, settings: Any, end: Callable[[User, SessionStore], None]
) -> None:
    settings.LIVEFEED_RECHECK_INTERVAL = 0.05
    user = await User.objects.acreate_user("ann")
    await sync_to_async(allow)(user)
    async with open_stream("plain") as bystander, open_stream(REVIEWS, user=user) as stream:
        await stream.next()
        await bystander.next()
        session = SessionStore((await Session.objects.aget()).session_key)
        await sync_to_async(end)(user, session)
        assert await closing(stream) == {"reason": "revoked"}
        await apublish("plain", {"n": 1})
        assert (await bystander.next()).json == {"n": 1}


async def test_a_stream_whose_right_holds_stays_open_through_many_looks(
    roster: Roster, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LIVEFEED_RECHECK_INTERVAL = 0.01
    looks, enough = [0], asyncio.Event()
    loop = asyncio.get_running_loop()

    def counted(streams: Any) -> list[Viewer | None]:
        found = rechecked(streams)
        looks[0] += 1
        if looks[0] == 5:
            loop.call_soon_threadsafe(enough.set)
        return found

    monkeypatch.setattr("livefeed.roster.rechecked", counted)
    user = await User.objects.acreate_user("ann")
    await sync_to_async(allow)(user)
    async with open_stream(REVIEWS, user=user) as stream:
        await stream.next()
        await asyncio.wait_for(enough.wait(), 5)
        await apublish(REVIEWS, {"n": 1})
        assert (await stream.next()).json == {"n": 1}


@pytest.mark.django_db
def test_what_is_lost_by_one_stream_is_lost_by_no_other(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    class Own(LiveFeed):
        name = "own"

        def has_view_permission(self, user: Any, topic: str) -> bool:
            return topic == f"own:{user.pk}"

    with_feed(Own)
    ann, bob, eve = (signed_in(User.objects.create_user(name)) for name in ("ann", "bob", "eve"))
    asked = [(ann, ["own:0", f"own:{ann.user.pk}"]), (bob, ["own:0"]), (eve, [f"own:{eve.user.pk}"])]
    streams = [(viewer, dict(zip(names, names, strict=True))) for viewer, names in asked]
    assert lost(streams) == [0, 1]
    assert lost(streams[::-1]) == [1, 2]


@pytest.mark.django_db
def test_of_two_tokens_of_a_user_each_keeps_its_scope() -> None:
    user = User.objects.create_user("ann")
    proof = Account(password_digest(user), time.time() + 60)
    narrow, wide = (
        Viewer(user, None, "a", False, frozenset(names), proof) for names in (["job:1"], ["job:1", "job:2"])
    )
    streams = [(narrow, {"job:1": "job:1"}), (wide, {"job:2": "job:2"})]
    for found in (rechecked(streams), rechecked(streams[::-1])[::-1]):
        assert [viewer.scope for viewer in found if viewer is not None] == [narrow.scope, wide.scope]


@pytest.mark.django_db
def test_of_two_sessions_of_a_user_the_one_that_ended_is_lost() -> None:
    user = User.objects.create_user("ann")
    streams = [(signed_in(user), {"plain": "plain"}) for _ in range(3)]
    Session.objects.filter(session_key=streams[1][0].session_key).delete()
    assert lost(streams) == [1]
    assert lost(streams[::-1]) == [1]


async def test_a_real_logout_closes_the_stream(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_RECHECK_INTERVAL = 0.05
    user = await User.objects.acreate_user("ann")
    async with open_stream("plain", user=user) as stream:
        await stream.next()
        browser = Client()
        browser.cookies["sessionid"] = (await Session.objects.aget()).session_key
        await sync_to_async(browser.logout)()
        assert await closing(stream) == {"reason": "revoked"}


@pytest.mark.django_db
@pytest.mark.parametrize("bulk", [False, True])
def test_a_rule_s_bad_question_refuses_and_a_database_that_is_away_says_nothing(
    with_feed: Callable[[type[LiveFeed]], None], bulk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = [DataError("out of range"), ProgrammingError("no such column")]
    away: list[Exception] = [OperationalError("gone away"), InterfaceError("closed")]
    raised: list[Exception] = []

    class Asking(LiveFeed):
        name = "asking"

        def has_view_permission(self, user: Any, topic: str) -> bool:
            raise raised[-1]

    if bulk:
        Asking.get_view_permissions = lambda self, asked: self.has_view_permission(*asked[0])  # type: ignore[method-assign]
    with_feed(Asking)
    streams = [(ANONYMOUS, {"asking:1": "asking:1"})]
    for error in errors:
        raised.append(error)
        assert lost(streams) == [0]
    for error in away:
        raised.append(error)
        with pytest.raises(type(error)):
            grant(ANONYMOUS, ["asking:1"])
        assert lost(streams) == [0], "the database is there, and has not answered this one question"
        with monkeypatch.context() as patch:
            patch.setattr("livefeed.transactions.database_is_away", lambda: True)
            with pytest.raises(type(error)):
                rechecked(streams)
