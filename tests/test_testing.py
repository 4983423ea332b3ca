"""What livefeed ships for its users' tests: capturing events, and reading a stream as a client does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import TestCase, TransactionTestCase

from livefeed import apublish, publish
from livefeed.models import Lease
from livefeed.roster import Roster, get_roster, rosters
from livefeed.testing import ServerSentEvent, capture_events, open_stream
from tests.reading import eventually, pool_threads
from tests.testapp.models import Article

pytest_plugins = ["tests.reading_fixtures"]

ARTICLES = "testapp.article"


# -- capture_events ---------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_events_of_the_block_are_captured_with_their_numbers() -> None:
    publish("plain", 0)
    with capture_events() as events:
        publish("plain", {"n": 1}, type="tick")
        Article.objects.create(title="Hello")
    publish("plain", 2)
    assert [(event.topic, event.type) for event in events] == [
        ("plain", "tick"),
        (ARTICLES, "created"),
        ("detail", "created"),
    ]
    assert events[0].seq == 2
    assert events[0].data == {"n": 1}


@pytest.mark.django_db(transaction=True)
def test_events_of_one_topic_can_be_captured_alone() -> None:
    with capture_events(ARTICLES) as events:
        publish("plain", 1)
        Article.objects.create(title="Hello")
    assert [event.data["title"] for event in events] == ["Hello"]


@pytest.mark.django_db(transaction=True)
def test_capturing_ends_when_the_block_fails() -> None:
    with pytest.raises(ZeroDivisionError), capture_events() as events:
        raise ZeroDivisionError
    publish("plain", 1)
    assert events == []


class WithTransactions(TransactionTestCase):
    def test_a_transaction_test_case_sees_what_is_published(self) -> None:
        with capture_events(ARTICLES) as events:
            Article.objects.create(title="Hello")
        assert [event.type for event in events] == ["created"]


class WithoutTransactions(TestCase):
    def test_a_test_case_sees_it_with_on_commit_callbacks(self) -> None:
        with capture_events(ARTICLES) as events, self.captureOnCommitCallbacks(execute=True):
            Article.objects.create(title="Hello")
        assert [event.data["title"] for event in events] == ["Hello"]

    def test_without_them_nothing_is_published(self) -> None:
        with capture_events() as events:
            Article.objects.create(title="Hello")
        assert events == []


# -- open_stream ------------------------------------------------------------------------------------------------------


async def test_the_example_of_the_documentation_works(roster: Roster) -> None:
    reader = await User.objects.acreate_user("ann")
    async with open_stream(ARTICLES, user=reader) as stream:
        opening = await stream.next()
        assert opening.type == "livefeed-open"
        await Article.objects.acreate(title="Hello")
        event = await stream.next()
    assert event.json["title"] == "Hello"


async def test_status_and_headers_are_there_before_the_first_event(roster: Roster) -> None:
    async with open_stream("nobody.knows") as stream:
        assert stream.status == 404
        assert stream.headers["content-type"] == "application/problem+json"
        assert b"404" in await stream.body()
        assert stream.ended
        with pytest.raises(EOFError):
            await stream.next()


async def test_several_events_can_be_taken_at_once(roster: Roster) -> None:
    async with open_stream("plain") as stream:
        await stream.next()
        for n in range(3):
            await apublish("plain", {"n": n})
        assert [event.json["n"] for event in await stream.take(3)] == [0, 1, 2]


async def test_waiting_ends_with_a_timeout(roster: Roster) -> None:
    async with open_stream("plain") as stream:
        await stream.next()
        stream.timeout = 0.05
        with pytest.raises(TimeoutError):
            await stream.next()


async def test_a_stream_that_waited_in_vain_can_still_be_read(roster: Roster) -> None:
    async with open_stream("plain") as stream:
        await stream.next()
        patience, stream.timeout = stream.timeout, 0.05
        with pytest.raises(TimeoutError):
            await stream.next()
        stream.timeout = patience
        await apublish("plain", {"n": 1})
        assert (await stream.next()).json == {"n": 1}


async def test_leaving_the_block_leaves_the_stream(roster: Roster) -> None:
    async with open_stream("plain") as stream:
        await stream.next()
        assert len(get_roster()) == 1
    assert len(get_roster()) == 0
    await eventually(_no_lease, "no lease is left")


async def _no_lease() -> bool:
    return not await Lease.objects.aexists()


async def test_an_error_in_the_block_leaves_the_stream_too(roster: Roster) -> None:
    async def fail() -> None:
        async with open_stream("plain") as stream:
            await stream.next()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert len(roster) == 0


async def test_cancelling_the_block_leaves_the_stream_too(roster: Roster) -> None:
    opened = asyncio.Event()

    async def read() -> None:
        async with open_stream("plain") as stream:
            await stream.next()
            opened.set()
            await stream.next()

    reading = asyncio.ensure_future(read())
    await opened.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await eventually(lambda: len(roster) == 0, "the stream is gone")


async def test_headers_query_and_cursor_are_sent(roster: Roster) -> None:
    await apublish("plain", {"n": 1})
    async with open_stream("plain", query=[("client", "page-1")], headers={"User-Agent": "Tests"}) as stream:
        cursor = (await stream.next()).id
        assert (await Lease.objects.aget()).client == "page-1"
    await apublish("plain", {"n": 2})
    async with open_stream("plain", cursor=cursor) as stream:
        assert (await stream.next()).json["resumed"] is True
        assert (await stream.next()).json == {"n": 2}


async def test_another_application_can_be_talked_to() -> None:
    asked: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["query_string"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Test", b"yes")]})
        await send({"type": "http.response.body", "body": b"id: 7\ntopic: a\ndata: [1]\n\n", "more_body": False})

    async with open_stream("a:b", application=application) as stream:
        event = await stream.next()
    assert asked == [b"topic=a%3Ab"]
    assert stream.headers == {"x-test": "yes"}
    assert event == ServerSentEvent("message", "[1]", "7", "a")
    assert event.json == [1]


async def test_nothing_of_a_stream_outlives_it_however_many_there_were(transactional_db: None) -> None:
    for _ in range(2):
        async with open_stream("plain") as stream:
            await stream.next()
            assert len(rosters()) == 1
        assert rosters() == []
    await eventually(lambda: not pool_threads(), "the hubs' threads have ended")
