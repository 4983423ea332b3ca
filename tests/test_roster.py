"""The streams of one event loop: how many there may be, what is done for all of them, and how they are let go."""

from __future__ import annotations

import asyncio
import datetime
import threading
from concurrent.futures import Future
from contextlib import AsyncExitStack
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import DatabaseError, OperationalError, connections
from django.utils import timezone

from livefeed import apublish, publish
from livefeed.events import new_event
from livefeed.history import get_history
from livefeed.leases import get_leases
from livefeed.models import Lease
from livefeed.personal import encode
from livefeed.roster import Roster, _claims, get_roster, rosters
from livefeed.streams import EventStream
from livefeed.testing import open_stream
from livefeed.topics import hashed, topic_holder
from livefeed.viewers import Viewer
from tests.reading import LIMIT, eventually, numbers, pool_threads

pytest_plugins = ["tests.reading_fixtures"]

PLAIN = "plain"
SOMEBODY = Viewer(AnonymousUser(), None, "192.0.2.1")


async def no_lease() -> bool:
    return not await Lease.objects.aexists()


# -- leases -----------------------------------------------------------------------------------------------------------


async def test_an_open_stream_has_a_lease_that_says_who_and_what(roster: Roster) -> None:
    async with open_stream(PLAIN, "build:1", query=[("client", "page-1")]) as stream:
        await stream.next()
        lease = await Lease.objects.aget()
    assert (lease.client, lease.topics, lease.session) == ("page-1", PLAIN, "")
    assert lease.holder.startswith("address:")


async def test_a_lease_says_in_which_session_and_does_not_tell_its_key(roster: Roster) -> None:
    ann = await User.objects.acreate_user("ann")
    async with open_stream(PLAIN, user=ann) as stream:
        await stream.next()
        lease = await Lease.objects.aget()
        key = (await Session.objects.afirst()).session_key  # type: ignore[union-attr]
    assert lease.holder == f"user:{ann.pk}"
    assert lease.session == hashed("session", key)
    assert key not in lease.session


async def test_leases_are_prolonged_as_long_as_their_streams_are_open(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_LEASE_SECONDS = 0.15
    async with open_stream(PLAIN) as stream:
        await stream.next()
        first = (await Lease.objects.aget()).expires_at

        async def prolonged_twice() -> bool:
            lease = await Lease.objects.aget()
            return bool((lease.expires_at - first).total_seconds() > 0.1)

        await eventually(prolonged_twice, "the lease was prolonged")
        settings.LIVEFEED_KEEPALIVE = 3600.0
        await apublish(PLAIN, {"n": 1})
        assert (await stream.next()).json == {"n": 1}


async def test_a_killed_process_s_places_are_free_after_the_time_to_live(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS = 1
    settings.LIVEFEED_LEASE_SECONDS = 3600.0
    async with open_stream(PLAIN) as left_behind:
        await left_behind.next()
        await Lease.objects.aupdate(process="killed")
        async with open_stream(PLAIN) as stream:
            assert stream.status == 429
        await Lease.objects.aupdate(expires_at=timezone.now() - datetime.timedelta(seconds=1))
        async with open_stream(PLAIN) as stream:
            assert stream.status == 200


async def test_a_page_that_connects_again_ends_what_it_had_open_here(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS = 1
    page = [("client", "page-1")]
    async with open_stream(PLAIN, query=page) as first, open_stream(PLAIN, query=page) as second:
        assert [(await first.next()).type for _ in range(2)] == ["livefeed-open", "livefeed-closing"]
        assert (await second.next()).type == "livefeed-open"
        async with open_stream(PLAIN, query=page) as third:
            assert (await second.next()).type == "livefeed-closing"
            await eventually(lambda: len(roster) == 1, "one stream is open")
            await apublish(PLAIN, {"n": 1})
            assert (await third.next()).type == "livefeed-open"
            assert (await third.next()).json == {"n": 1}
    await eventually(lambda: len(roster) == 0, "none is open")
    assert (roster._pages, roster._page_of) == ({}, {})


async def test_of_two_connections_of_a_page_at_once_one_stays(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS = 1
    async with AsyncExitStack() as stack:
        opening = [stack.enter_async_context(open_stream(PLAIN, query=[("client", "page-1")])) for _ in range(10)]
        await asyncio.gather(*opening)
        await eventually(lambda: len(roster) == 1, "one stream is open")


async def test_without_a_limit_anybody_may_come(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS = 0
    settings.LIVEFEED_MAX_CONNECTIONS = 0
    assert await connect_together(30) == [200] * 30


async def test_a_client_that_leaves_while_its_lease_is_written_leaves_none(
    roster: Roster, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, writing, written = threading.Event(), threading.Event(), threading.Event()
    acquire_all = get_leases().acquire_all

    def slow(*args: Any) -> list[str | Exception]:
        writing.set()
        assert go.wait(LIMIT)
        answers = acquire_all(*args)
        written.set()
        return answers

    monkeypatch.setattr(get_leases(), "acquire_all", slow)
    connecting = asyncio.ensure_future(types_of_stream())
    await eventually(writing.is_set, "the lease is being written")
    connecting.cancel()
    await asyncio.wait([connecting])
    go.set()
    await eventually(written.is_set, "the lease is written")
    await eventually(no_lease, "the lease is given back")
    assert len(roster) == 0


async def test_those_who_wait_for_a_lease_get_theirs_in_one_go(
    roster: Roster, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS = 8
    go, acquire_all, together = threading.Event(), get_leases().acquire_all, list[int]()

    def slow(requests: Any) -> list[str | Exception]:
        together.append(len(requests))
        assert go.wait(LIMIT)
        return acquire_all(requests)

    monkeypatch.setattr(get_leases(), "acquire_all", slow)
    connecting = asyncio.ensure_future(connect_together(10))
    await eventually(lambda: together and together[0] + len(roster._wanted) == 10, "the others wait")
    go.set()
    assert sorted(await connecting) == [200] * 8 + [429] * 2
    assert len(together) == 2
    assert sum(together) == 10


async def test_a_keeper_that_fails_refuses_all_who_waited_and_nobody_after_them(
    roster: Roster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(requests: Any) -> list[str | Exception]:
        raise OperationalError("away")

    with monkeypatch.context() as patched:
        patched.setattr(get_leases(), "acquire_all", fail)
        assert await connect_together(3) == [503] * 3
    assert await connect_together(3) == [200] * 3


async def test_a_keeper_that_answers_too_few_keeps_nobody_waiting(
    roster: Roster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(get_leases(), "acquire_all", lambda requests: [])
        assert await connect_together(3) == [500] * 3
    assert "acquire_all() gave 0 answers to" in caplog.text
    assert await connect_together(3) == [200] * 3


async def test_leases_are_given_back_although_the_database_was_away(
    roster: Roster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = asyncio.Event()
    loop = asyncio.get_running_loop()

    def away(tokens: Any) -> None:
        loop.call_soon_threadsafe(tried.set)
        raise DatabaseError("away")

    with monkeypatch.context() as patch:
        patch.setattr(get_leases(), "release", away)
        async with open_stream(PLAIN) as stream:
            await stream.next()
        await asyncio.wait_for(tried.wait(), LIMIT)
    await eventually(no_lease, "the lease is given back")
    assert "Giving leases back failed" in caplog.text


# -- how many ---------------------------------------------------------------------------------------------------------


async def connect_together(count: int) -> list[int]:
    """Return the statuses that so many clients get who connect at once and stay until all have an answer."""
    statuses: list[int] = []
    everybody = asyncio.Event()

    async def connect() -> None:
        async with open_stream(PLAIN) as stream:
            statuses.append(stream.status)
            if len(statuses) == count:
                everybody.set()
            await everybody.wait()

    await asyncio.gather(*(connect() for _ in range(count)))
    return sorted(statuses)


async def test_those_who_connect_in_the_same_moment_do_not_get_past_the_process_s_limit(
    roster: Roster, settings: Any
) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS = 0
    settings.LIVEFEED_MAX_CONNECTIONS = 3
    assert await connect_together(8) == [200] * 3 + [503] * 5
    assert len(roster) == 0


async def test_a_connection_that_could_not_be_placed_takes_no_place(
    roster: Roster, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS = 1

    def away(topics: Any) -> Any:
        raise DatabaseError("away")

    with monkeypatch.context() as patch:
        patch.setattr(get_history(), "heads", away)
        for _ in range(3):
            async with open_stream(PLAIN) as stream:
                assert stream.status == 503
    assert len(roster) == 0
    await eventually(no_lease, "the lease is given back")
    async with open_stream(PLAIN) as stream:
        assert stream.status == 200


# -- whose limits a connection counts against -----------------------------------------------------------------------


USER, ANYBODY = User(pk=7), AnonymousUser()
U, S, A, T = "user:7", "session", "address", "topic:plain"


@pytest.mark.parametrize(
    ("viewer", "limits", "claimed"),
    [
        (Viewer(USER, "s", "a"), {}, [(U, 10)]),  # the session's limit could not be reached
        (Viewer(USER, None, "a"), {}, [(U, 10)]),
        (Viewer(USER, "s", "a"), {"SESSION": 3}, [(U, 10), (S, 3)]),
        (Viewer(USER, "s", "a"), {"USER": 0}, [(U, 0), (S, 10)]),
        (Viewer(USER, "s", "a"), {"USER": 0, "SESSION": 0}, [(U, 0), (S, 0)]),
        (Viewer(ANYBODY, "s", "a"), {}, [(S, 10), (A, 100)]),
        (Viewer(ANYBODY, None, "a"), {}, [(A, 100)]),
        (Viewer(None, None, "a"), {"ADDRESS": 0}, [(A, 0)]),
        (Viewer(ANYBODY, "s", "a"), {"SESSION": 0, "ADDRESS": 0}, [(S, 0), (A, 0)]),
        (Viewer(USER, "s", "a"), {"TOPIC": 5}, [(U, 10), (T, 5)]),
        (Viewer(ANYBODY, None, "a"), {"TOPIC": 5}, [(A, 100), (T, 5)]),
    ],
)
def test_a_connection_counts_against_every_limit_that_could_bind_it(
    settings: Any, viewer: Viewer, limits: dict[str, int], claimed: list[tuple[str, int]]
) -> None:
    for name, limit in limits.items():
        setattr(settings, f"LIVEFEED_MAX_CONNECTIONS_PER_{name}", limit)
    claims = [(claim.holder, claim.limit) for claim in _claims(viewer, [PLAIN])]
    assert [limit for _, limit in claims] == [limit for _, limit in claimed]
    assert all(holder.startswith(start) for (holder, _), (start, _) in zip(claims, claimed, strict=True))


def test_the_holder_of_a_long_topic_fits_its_column() -> None:
    longest = "t" * 200
    assert len(topic_holder(longest)) <= 200
    assert topic_holder(longest) != topic_holder(longest[:-1] + "u")


async def refusal(*topics: str, cookie: str = "") -> Any:
    """Return what a browser is told that is one too many."""
    async with open_stream(*topics, headers={"sec-fetch-mode": "cors", "cookie": cookie}) as stream:
        event = await stream.next()
        assert event.type == "livefeed-refused"
        return event.json


async def test_new_sessions_do_not_get_around_the_limit_of_an_address(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS = 2
    async with AsyncExitStack() as stack:
        for _ in range(2):
            cookie = await _new_session()
            stream = await stack.enter_async_context(open_stream(PLAIN, headers={"cookie": cookie}))
            assert stream.status == 200
        told = await refusal(PLAIN, cookie=await _new_session())
        assert (told["reason"], told["of"], told["limit"]) == ("limit", "address", 2)
        user = await User.objects.acreate_user("ann")
        async with open_stream(PLAIN, user=user) as stream:
            assert stream.status == 200, "who is signed in does not count against the address"


async def _new_session() -> str:
    session = SessionStore()
    await session.acreate()
    return f"sessionid={session.session_key}"


async def test_a_topic_may_have_a_limit_of_its_own(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS_PER_TOPIC = 1
    async with open_stream(PLAIN, "testapp.article") as stream:
        assert stream.status == 200
        told = await refusal("testapp.article", "plain:other")
        assert (told["reason"], told["of"], told["limit"]) == ("limit", "topic", 1)
        async with open_stream("plain:other") as other:
            assert other.status == 200, "who was refused holds nothing"


# -- goodbyes ---------------------------------------------------------------------------------------------------------


async def test_draining_says_goodbye_to_every_stream_and_lets_nobody_in(roster: Roster) -> None:
    async with open_stream(PLAIN) as first, open_stream("testapp.article") as second:
        for stream in (first, second):
            await stream.next()
        draining = asyncio.ensure_future(roster.drain(LIMIT))
        for stream in (first, second):
            closing = await stream.next()
            assert (closing.type, closing.json, closing.id) == ("livefeed-closing", {"reason": "shutdown"}, closing.id)
            with pytest.raises(EOFError):
                await stream.next()
        await asyncio.wait_for(draining, LIMIT)
    assert len(roster) == 0
    assert await no_lease()
    async with open_stream(PLAIN) as late:
        assert late.status == 503


async def test_draining_does_not_wait_for_a_client_that_does_not_read(
    roster: Roster, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_stream(PLAIN) as stream:
        await stream.next()
        monkeypatch.setattr(EventStream, "say_goodbye", lambda stream, reason: None)
        await roster.drain(0.05)
        assert "1 streams did not end" in caplog.text


class SlowHeads:
    """Holds up whoever opens a topic, after the door and before the stream."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._go, self._reading = threading.Event(), threading.Event()
        self._heads = get_history().heads
        monkeypatch.setattr(get_history(), "heads", self._slow)

    def _slow(self, topics: Any) -> Any:
        self._reading.set()
        assert self._go.wait(LIMIT)
        return self._heads(topics)

    async def reached(self) -> None:
        await eventually(self._reading.is_set, "the history is read")

    def go_on(self) -> None:
        self._go.set()


async def types_of_stream() -> list[str]:
    """Connect; return the types of all events until the stream ends, or the status if there is no stream."""
    types: list[str] = []
    async with open_stream(PLAIN) as stream:
        if stream.status != 200:
            return [str(stream.status)]
        while not types or types[-1] != "livefeed-closing":
            types.append((await stream.next()).type)
    return types


async def test_a_client_that_is_let_in_while_the_process_begins_to_drain_is_told_too(
    roster: Roster, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = SlowHeads(monkeypatch)
    connecting = asyncio.ensure_future(types_of_stream())
    await heads.reached()
    draining = asyncio.ensure_future(roster.drain(LIMIT))
    await asyncio.sleep(0)
    heads.go_on()
    assert await asyncio.wait_for(connecting, LIMIT) in (["livefeed-open", "livefeed-closing"], ["503"])
    await asyncio.wait_for(draining, LIMIT)
    assert len(roster) == 0


async def test_a_client_that_was_let_in_counts_before_its_stream_begins(
    roster: Roster, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS = 1
    heads = SlowHeads(monkeypatch)
    first = asyncio.ensure_future(types_of_stream())
    await heads.reached()
    async with open_stream("plain:other") as second:
        assert second.status == 503
    heads.go_on()
    await eventually(lambda: len(roster) == 1, "the first is there")
    await roster.drain(LIMIT)
    assert await first == ["livefeed-open", "livefeed-closing"]


async def test_a_closed_roster_has_no_task_no_thread_and_no_lease(roster: Roster) -> None:
    before = len(asyncio.all_tasks())
    async with open_stream(PLAIN) as stream:
        await stream.next()
    await roster.close()
    assert len(asyncio.all_tasks()) <= before
    assert await no_lease()
    await eventually(lambda: not pool_threads(), "the threads have ended")


async def test_a_closed_roster_can_be_used_again(roster: Roster) -> None:
    for n in (1, 2):
        async with open_stream(PLAIN) as stream:
            await stream.next()
            await apublish(PLAIN, {"n": n})
            assert (await stream.next()).json == {"n": n}
        await roster.close()


async def test_a_chore_that_fails_takes_no_other_with_it(
    roster: Roster, settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.LIVEFEED_RECHECK_INTERVAL = 0.01
    settings.LIVEFEED_KEEPALIVE = 0.1

    def broken(streams: Any) -> list[int]:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("livefeed.roster.rechecked", broken)
    async with open_stream(PLAIN) as stream:
        await stream.next()
        assert await stream.portion() == b": keep-alive\n\n"
    assert "The re-check of rights failed" in caplog.text


# -- one for each event loop ------------------------------------------------------------------------------------------


async def test_each_loop_has_its_roster_and_keeps_it(roster: Roster) -> None:
    assert get_roster() is roster
    assert (asyncio.get_running_loop(), roster) in rosters()
    assert await asyncio.to_thread(asyncio.run, _own_roster()) is not roster


async def _own_roster() -> Roster:
    return get_roster()


class Reader:
    """A reader on an event loop and a thread of its own."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.found: Future[list[int]] = Future()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.found.set_result(asyncio.run(self._read()))
        except BaseException as error:
            self.found.set_exception(error)

    async def _read(self) -> list[int]:
        found: list[int] = []
        async with open_stream(PLAIN, timeout=LIMIT) as stream:
            await stream.next()
            self.opened.set()
            while len(found) < 20:
                found += numbers([await stream.next()])
        await get_roster().close()
        await sync_to_async(connections.close_all)()
        return found


@pytest.mark.django_db(transaction=True)
def test_two_event_loops_in_one_process_both_get_every_event(layer: Any, settings: Any) -> None:
    settings.LIVEFEED_LOOK_INTERVAL = 0.05
    readers = [Reader(), Reader()]
    for reader in readers:
        assert reader.opened.wait(LIMIT)
    for n in range(20):
        publish(PLAIN, {"n": n})
    for reader in readers:
        assert reader.found.result(LIMIT) == list(range(20))
        reader.thread.join(LIMIT)


@pytest.mark.django_db(transaction=True)
def test_a_loop_that_ended_takes_no_other_with_it(layer: Any, settings: Any) -> None:
    settings.LIVEFEED_LOOK_INTERVAL = 0.05
    staying = Reader()
    assert staying.opened.wait(LIMIT)

    async def come_and_go() -> None:
        async with open_stream(PLAIN) as stream:
            await stream.next()
        await get_roster().close()
        await sync_to_async(connections.close_all)()

    asyncio.run(come_and_go())
    for n in range(20):
        publish(PLAIN, {"n": n})
    assert staying.found.result(LIMIT) == list(range(20))
    staying.thread.join(LIMIT)


# -- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "data", "frame"),
    [
        ("testapp.article", {"a": 1}, b'event: tick\ndata: {"a":1}\n\n'),
        ("unowned", {"a": 1}, b'event: tick\ndata: {"a":1}\n\n'),
        ("plain", {"a": 1}, b'data: {"a":1}\n\n'),
        ("plain:7", "<p>\n</p>", b"data: <p>\ndata: </p>\n\n"),
        ("plain", "", b"data: \n\n"),
        ("plain", None, b"data: null\n\n"),
        ("testapp.article", "text", b'event: tick\ndata: "text"\n\n'),
    ],
)
def test_a_frame_is_as_the_feed_that_owns_the_topic_chooses(topic: str, data: object, frame: bytes) -> None:
    assert encode(new_event(topic, data, "tick")) == frame


async def test_a_stream_encodes_an_event_once_for_all_its_readers(
    roster: Roster, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS = 0
    encoded: list[str] = []
    inner = roster.hub._encode

    def counted(event: Any) -> bytes:
        encoded.append(event.id)
        return inner(event)

    monkeypatch.setattr(roster.hub, "_encode", counted)
    ready, done, results = asyncio.Event(), [], []

    async def read() -> None:
        async with open_stream(PLAIN) as stream:
            await stream.next()
            done.append(1)
            if len(done) == 20:
                ready.set()
            results.append(numbers([await stream.next() for _ in range(5)]))

    readers = [asyncio.ensure_future(read()) for _ in range(20)]
    await asyncio.wait_for(ready.wait(), LIMIT)
    for n in range(5):
        await apublish(PLAIN, {"n": n})
    await asyncio.gather(*readers)
    assert results == [list(range(5))] * 20
    assert len(encoded) == 5
