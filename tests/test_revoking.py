"""Rights that end, told to every process at once: by Django's signals, by `disconnect()` and by `recheck()`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser, Group, Permission, User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models.signals import post_save
from django.test import Client

from livefeed import LiveFeed, adisconnect, apublish, arecheck, broker, disconnect, recheck
from livefeed.access import rechecked
from livefeed.exceptions import InvalidTopic, WrongContext
from livefeed.models import Lease
from livefeed.revocations import EVERYBODY, Revocation, pack, unpack
from livefeed.revoking import tell
from livefeed.roster import REMEMBERED, Roster
from livefeed.testing import EventStreamClient, open_stream
from tests.reading import eventually
from tests.testapp.models import Person

pytest_plugins = ["tests.reading_fixtures"]

REVIEWS = "testapp.review"


@pytest.fixture(autouse=True)
def rarely_looked_at(settings: Any) -> None:
    """What is noticed in these tests is noticed at once, and not by the next look."""
    settings.LIVEFEED_RECHECK_INTERVAL = 3600.0
    settings.LIVEFEED_LEASE_SECONDS = 3600.0


async def closing(stream: EventStreamClient) -> Any:
    """Return what a stream says at its end."""
    while (event := await stream.next()).type != "livefeed-closing":
        pass
    return event.json


async def stays_open(*streams: EventStreamClient, roster: Roster) -> None:
    """Check that nothing closes these streams, once everything that was told has arrived."""
    heard = asyncio.Event()
    taken = roster.hub.on_revocations

    def hear(revocations: Any) -> None:
        taken(revocations)
        if any(revocation.topic == "the.end" for revocation in revocations):
            heard.set()

    roster.hub.on_revocations = hear
    await arecheck(topic="the.end")
    await asyncio.wait_for(heard.wait(), 5)
    await eventually(lambda: roster._rechecking is None or roster._rechecking.done(), "what was told is done")
    assert [stream.ended for stream in streams] == [False] * len(streams)
    await apublish("plain", {"still": "here"})
    for stream in streams:
        if stream.status == 200:
            assert (await stream.next()).json == {"still": "here"}


def _log_out(user: User) -> None:
    browser = Client()
    browser.cookies["sessionid"] = next(
        row.session_key for row in Session.objects.all() if row.get_decoded().get("_auth_user_id") == str(user.pk)
    )
    browser.logout()


def _change_password(user: User) -> None:
    user.set_password("another")
    user.save()


def _save_by_proxy(user: User) -> None:
    person = Person.objects.get(pk=user.pk)
    person.is_active = False
    person.save()


def _deactivate(user: User) -> None:
    user.is_active = False
    user.save(update_fields=["is_active"])


def _lose_permission(user: User) -> None:
    user.user_permissions.clear()


def _permission_loses_user(user: User) -> None:
    Permission.objects.get(codename="view_review").user_set.remove(user)


def _permission_loses_everybody(user: User) -> None:
    Permission.objects.get(codename="view_review").user_set.clear()


def _permission_is_deleted(user: User) -> None:
    Permission.objects.get(codename="view_review").delete()


def _in_a_transaction(user: User) -> None:
    with transaction.atomic():
        user.user_permissions.clear()


ENDS = [
    _log_out,
    _change_password,
    _deactivate,
    _save_by_proxy,
    User.delete,
    _lose_permission,
    _permission_loses_user,
    _permission_loses_everybody,
    _permission_is_deleted,
    _in_a_transaction,
]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__.strip("_"))
async def test_what_django_tells_closes_the_stream_at_once(roster: Roster, end: Callable[[User], object]) -> None:
    user = await User.objects.acreate_user("ann", password="one")
    await user.user_permissions.aadd(await Permission.objects.aget(codename="view_review"))
    bystander = await User.objects.acreate_user("bob")
    async with open_stream(REVIEWS, user=user) as stream, open_stream("plain", user=bystander) as staying:
        await stream.next()
        await staying.next()
        await sync_to_async(end)(user)
        assert await closing(stream) == {"reason": "revoked"}
        await stays_open(staying, roster=roster)


def _leave_group(user: User, group: Group) -> None:
    user.groups.remove(group)


def _group_loses_user(user: User, group: Group) -> None:
    group.user_set.set([])


def _group_loses_permission(user: User, group: Group) -> None:
    group.permissions.clear()


def _group_is_deleted(user: User, group: Group) -> None:
    group.delete()


@pytest.mark.parametrize(
    "end",
    [_leave_group, _group_loses_user, _group_loses_permission, _group_is_deleted],
    ids=lambda end: end.__name__.strip("_"),
)
async def test_a_permission_that_came_by_a_group_ends_with_it_at_once(
    roster: Roster, end: Callable[[User, Group], None]
) -> None:
    user, group = await User.objects.acreate_user("ann"), await Group.objects.acreate(name="editors")
    await group.permissions.aadd(await Permission.objects.aget(codename="view_review"))
    await user.groups.aadd(group)
    async with open_stream(REVIEWS, user=user) as stream:
        await stream.next()
        await sync_to_async(end)(user, group)
        assert await closing(stream) == {"reason": "revoked"}


async def test_what_rolls_back_ends_nothing(roster: Roster) -> None:
    user = await User.objects.acreate_user("ann")

    def change_of_mind() -> None:
        with transaction.atomic():
            user.delete()
            disconnect(user=user.pk or 1)
            transaction.set_rollback(True)

    async with open_stream("plain", user=user) as stream:
        await stream.next()
        await sync_to_async(change_of_mind)()
        await stays_open(stream, roster=roster)


async def test_a_login_elsewhere_a_new_user_and_a_new_right_close_nothing(roster: Roster) -> None:
    user = await User.objects.acreate_user("ann", password="one")
    told: list[Revocation] = []
    roster.hub.on_revocations = told.extend

    def much_ado() -> None:
        Client().force_login(user)  # writes last_login
        User.objects.create_user("new")

    async with open_stream("plain", user=user) as stream:
        await stream.next()
        await sync_to_async(much_ado)()
        await arecheck(topic="the.end")
        await eventually(lambda: told, "told")
        assert [revocation.topic for revocation in told] == ["the.end"]
        roster.hub.on_revocations = roster.revoke
        await user.user_permissions.aadd(await Permission.objects.aget(codename="view_review"))
        await stays_open(stream, roster=roster)


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_a_user_who_is_saved_in_another_database_is_told_of_when_that_one_commits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Revocation] = []
    monkeypatch.setattr(broker, "tell", told.append)
    user = User(pk=7, username="ann")
    with transaction.atomic(using="other"):
        post_save.send(User, instance=user, created=False, using="other", update_fields=None, raw=False)
        assert told == []
    assert told == [Revocation("user:7")]


# -- disconnect() -----------------------------------------------------------------------------------------------------


async def test_disconnect_closes_the_streams_that_are_meant_and_takes_their_leases(roster: Roster) -> None:
    ann, bob = await User.objects.acreate_user("ann"), await User.objects.acreate_user("bob")
    async with (
        open_stream("plain", user=ann) as first,
        open_stream("testapp.article", user=ann) as second,
        open_stream("plain", user=bob) as other,
    ):
        for stream in (first, second, other):
            await stream.next()
        await adisconnect(user=ann, topic="plain")
        assert await closing(first) == {"reason": "revoked"}
        await eventually(lambda: _leases(2), "the lease is gone")
        await adisconnect(user=ann.pk)
        assert await closing(second) == {"reason": "revoked"}
        await stays_open(other, roster=roster)


async def _leases(count: int) -> bool:
    return await Lease.objects.acount() == count


async def test_disconnect_by_topic_closes_everybody_on_it(roster: Roster) -> None:
    ann = await User.objects.acreate_user("ann")
    async with (
        open_stream("plain:1", "plain", user=ann) as first,
        open_stream("plain:1") as second,
        open_stream("plain") as other,
    ):
        for stream in (first, second, other):
            await stream.next()
        await adisconnect(topic="plain:1")
        for stream in (first, second):
            assert await closing(stream) == {"reason": "revoked"}
        await stays_open(other, roster=roster)


async def test_disconnect_by_session_leaves_the_user_s_other_sessions_alone(roster: Roster) -> None:
    ann = await User.objects.acreate_user("ann")
    async with open_stream("plain", user=ann) as first:
        await first.next()
        session = (await Session.objects.aget()).session_key
        async with open_stream("plain", user=ann) as second:
            await second.next()
            await adisconnect(session=session)
            assert await closing(first) == {"reason": "revoked"}
            await stays_open(second, roster=roster)


async def test_a_connection_that_is_closed_by_its_lease_is_the_only_one(roster: Roster) -> None:
    async with open_stream("plain") as first:
        await first.next()
        lease = await Lease.objects.aget()
        async with open_stream("plain") as second:
            await second.next()
            await sync_to_async(tell)(Revocation(leases=(lease.token,), close=True))
            assert await closing(first) == {"reason": "revoked"}
            await stays_open(second, roster=roster)


async def test_a_logout_leaves_the_user_s_other_sessions_alone(roster: Roster) -> None:
    ann = await User.objects.acreate_user("ann")
    async with open_stream("plain", user=ann) as first:
        await first.next()
        browser = Client()
        browser.cookies["sessionid"] = (await Session.objects.aget()).session_key
        async with open_stream("plain", user=ann) as second:
            await second.next()
            await sync_to_async(browser.logout)()
            assert await closing(first) == {"reason": "revoked"}
            await stays_open(second, roster=roster)


async def test_whoever_may_still_read_comes_back_after_a_disconnect(roster: Roster) -> None:
    ann = await User.objects.acreate_user("ann")
    async with open_stream("plain", user=ann) as stream:
        cursor = (await stream.next()).id
        await adisconnect(user=ann)
        await closing(stream)
    await apublish("plain", {"n": 1})
    async with open_stream("plain", user=ann, cursor=cursor) as stream:
        assert (await stream.next()).type == "livefeed-open"
        assert (await stream.next()).json == {"n": 1}


@pytest.mark.parametrize("setting", ["LIVEFEED_LEASE_SECONDS", "LIVEFEED_RECHECK_INTERVAL"])
async def test_while_the_layer_is_away_who_was_disconnected_is_closed_when_leases_are_prolonged(
    roster: Roster, settings: Any, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """Whichever comes first of the time for a re-check, and a third of that of a lease."""
    setattr(settings, setting, 0.3)
    ann = await User.objects.acreate_user("ann")

    async def away(*args: Any) -> None:
        raise ConnectionError("away")

    monkeypatch.setattr(broker.channel_layer(), "group_send", away)
    async with open_stream("plain", user=ann) as stream, open_stream("plain") as other:
        await stream.next()
        await other.next()
        await adisconnect(user=ann)
        assert await closing(stream) == {"reason": "taken-over"}
        assert not other.ended


def test_disconnect_wants_to_be_told_whom() -> None:
    with pytest.raises(ValueError, match="Name a user, a session or a topic"):
        disconnect()


@pytest.mark.parametrize("session", ["", SessionStore()])
def test_a_session_without_a_key_can_t_be_disconnected(session: Any) -> None:
    with pytest.raises(ValueError, match="has no key"):
        disconnect(session=session)


@pytest.mark.parametrize("user", [AnonymousUser(), User()])
def test_nobody_in_particular_can_t_be_disconnected(user: Any) -> None:
    with pytest.raises(ValueError, match="nobody who could be signed in"):
        disconnect(user=user)


def test_a_topic_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidTopic):
        disconnect(topic="no topic")
    with pytest.raises(InvalidTopic):
        recheck(topic="plain~1~signed")


async def test_in_a_running_loop_the_async_twins_are_to_be_used() -> None:
    with pytest.raises(WrongContext, match="adisconnect"):
        disconnect(topic="plain")
    with pytest.raises(WrongContext, match="arecheck"):
        recheck()


# -- recheck() --------------------------------------------------------------------------------------------------------


class Fickle(LiveFeed):
    name = "fickle"
    closed_to: set[int] = set()
    asked: list[tuple[Any, str]] = []

    def has_view_permission(self, user: Any, topic: str) -> bool:
        Fickle.asked.append((user.pk, topic))
        return user.pk not in Fickle.closed_to


@pytest.fixture
def fickle(with_feed: Callable[[type[LiveFeed]], None]) -> type[Fickle]:
    with_feed(Fickle)
    Fickle.closed_to, Fickle.asked = set(), []
    return Fickle


async def test_recheck_asks_the_rules_again_and_closes_only_who_lost(roster: Roster, fickle: type[Fickle]) -> None:
    ann, bob = await User.objects.acreate_user("ann"), await User.objects.acreate_user("bob")
    async with (
        open_stream("fickle:1", "plain", user=ann) as first,
        open_stream("fickle:1", "plain", user=bob) as second,
        open_stream("plain", user=ann) as third,
    ):
        for stream in (first, second, third):
            await stream.next()
        fickle.closed_to.add(ann.pk)
        await arecheck(topic="fickle:2")
        await stays_open(first, second, third, roster=roster)
        await arecheck(topic="fickle:1")
        assert await closing(first) == {"reason": "revoked"}
        await stays_open(second, third, roster=roster)
        fickle.closed_to.add(bob.pk)
        await arecheck()
        assert await closing(second) == {"reason": "revoked"}


async def test_many_revocations_of_one_user_are_one_look_or_two(roster: Roster, fickle: type[Fickle]) -> None:
    ann = await User.objects.acreate_user("ann")
    async with open_stream("fickle", "plain", user=ann) as stream:
        await stream.next()
        fickle.asked.clear()
        for _ in range(200):
            roster.revoke([Revocation(f"user:{ann.pk}")])
        await stays_open(stream, roster=roster)
        assert 1 <= len(fickle.asked) <= 2


async def test_a_right_that_ends_while_its_stream_is_placed_is_noticed_when_it_begins(
    roster: Roster, fickle: type[Fickle], monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await User.objects.acreate_user("ann")
    acquire = roster._acquire

    async def meanwhile(request: Any) -> str:
        fickle.closed_to.add(ann.pk)
        roster.revoke([Revocation(f"user:{ann.pk}")])
        return await acquire(request)

    monkeypatch.setattr(roster, "_acquire", meanwhile)
    async with open_stream("fickle", user=ann) as stream:
        assert await closing(stream) == {"reason": "revoked"}


async def test_a_logout_that_is_told_before_the_session_ends_is_noticed_at_the_door_all_the_same(
    roster: Roster, fickle: type[Fickle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livefeed.roster.DOORWAY", 0.1)
    ann = await User.objects.acreate_user("ann")
    told = asyncio.get_running_loop().time() + 60  # however long it takes to connect
    roster._recent.append((told, Revocation(f"user:{ann.pk}", close=True)))
    async with open_stream("fickle", user=ann) as stream:
        await stream.next()
        await eventually(lambda: len(fickle.asked) > 1, "the first look found nothing")
        fickle.closed_to.add(ann.pk)
        assert await closing(stream) == {"reason": "revoked"}


def _told(count: int) -> list[Revocation]:
    return [Revocation(f"user:{n}") for n in range(count)]


async def test_of_more_revocations_than_are_remembered_everybody_at_the_door_is_meant(roster: Roster) -> None:
    roster.revoke(_told(REMEMBERED - 1))
    assert roster._just_told() == _told(REMEMBERED - 1)
    roster.revoke(_told(1))
    assert roster._just_told() == [EVERYBODY]


async def test_nothing_is_kept_of_streams_that_have_ended(roster: Roster) -> None:
    ann = await User.objects.acreate_user("ann")
    async with open_stream("plain", user=ann) as one, open_stream("plain", user=ann) as two:
        await one.next()
        await two.next()
        assert f"user:{ann.pk}" in roster._held
    await eventually(lambda: not roster._streams, "both have ended")
    assert roster._held == {}


async def test_a_look_that_fails_closes_nothing_and_says_so(
    roster: Roster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ann = await User.objects.acreate_user("ann")
    async with open_stream("plain", user=ann) as stream:
        await stream.next()

        def away(streams: Any) -> Any:
            raise ConnectionError("away")

        with monkeypatch.context() as patch:
            patch.setattr("livefeed.roster.rechecked", away)
            await arecheck(user=ann)
            await stays_open(stream, roster=roster)
        assert "A look at the rights of 1 streams failed" in caplog.text


async def test_viewers_are_known_as_they_are_now_after_a_look(roster: Roster) -> None:
    ann = await User.objects.acreate_user("ann")
    async with open_stream("plain", user=ann) as stream:
        await stream.next()
        (opened,) = roster._streams
        before = opened.viewer.user
        ann.is_staff = True
        await ann.asave()
        await eventually(lambda: opened.viewer.user.is_staff, "the user is known as they are now")
        assert before.is_staff is False


async def test_a_look_that_took_longer_than_a_later_one_does_not_bring_back_what_was(
    roster: Roster, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await User.objects.acreate_user("ann")
    async with open_stream("plain", user=ann) as stream:
        await stream.next()
        (opened,) = roster._streams
        go, asked = threading.Event(), threading.Event()

        def hold(streams: Any) -> Any:
            found = rechecked(streams)
            asked.set()
            assert go.wait(5)
            return found

        with monkeypatch.context() as patch:
            patch.setattr("livefeed.roster.rechecked", hold)
            looking = asyncio.ensure_future(roster._look_again_at([opened]))
            await eventually(asked.is_set, "the slow look has read")
        ann.is_staff = True
        await ann.asave()
        await eventually(lambda: opened.viewer.user.is_staff, "a later look was quicker")
        go.set()
        await looking
        assert opened.viewer.user.is_staff


# -- on the wire between processes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "revocation",
    [EVERYBODY, Revocation("user:7"), Revocation(session="d", topic="a:b", leases=("t", "u"), close=True)],
)
def test_a_revocation_comes_through_as_it_was(revocation: Revocation) -> None:
    assert unpack(pack([revocation, EVERYBODY])) == [revocation, EVERYBODY]


NONE_OF_OURS = [b"", b"{}x", b"[1]", b'["a"]', b'[["a","","",[],1]]', b'[[1,"","",[],true]]', b"[[]]"]


@pytest.mark.parametrize("body", NONE_OF_OURS)
def test_what_is_none_is_refused(body: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        unpack(body)


async def test_a_flood_of_revocations_becomes_one_of_everybody(layer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "OUTBOX_REVOCATIONS", 3)
    inbox, outbox = broker.Inbox(), broker.Outbox(asyncio.get_running_loop())
    await inbox.join(broker.REVOCATIONS)
    for n in range(5):
        outbox._tell(Revocation(f"user:{n}"))
    await outbox.flushed()
    assert await inbox.receive() == [EVERYBODY, Revocation("user:3"), Revocation("user:4")]
