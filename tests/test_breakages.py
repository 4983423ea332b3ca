"""Fifteen ways in which a stream of events that says it repairs itself was seen to break. None of them breaks this one.

Each is one test, named after what must hold, in the order in which they were found; the numbers are those of
docs/guarantees.md. Where a break needs servers of their own, its test is in tests/e2e/test_breakages.py (10 and 12).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import channel_layers
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.db import transaction
from django.test import AsyncClient

from livefeed import apublish, broker, publish
from livefeed import hub as hub_module
from livefeed.cursors import parse_cursor
from livefeed.events import Stretch
from livefeed.history import acursor, get_history
from livefeed.models import StoredEvent, StoredTopic
from livefeed.roster import Roster
from livefeed.testing import EventStreamClient, open_stream
from tests.reading import append, numbers
from tests.services import RedisServer
from tests.steps import Writer
from tests.testapp.models import Article
from tests.writing import rolled_back, statements, stored

pytest_plugins = ["tests.reading_fixtures", "tests.steps_fixtures"]

PLAIN = "plain"
ARTICLES = "testapp.article"
LAYERS = ["channels_redis.pubsub.RedisPubSubChannelLayer", "channels_redis.core.RedisChannelLayer"]


async def write(*ns: int, topic: str = PLAIN) -> None:
    for n in ns:
        await apublish(topic, {"n": n})


async def read(stream: EventStreamClient, last: int) -> list[int]:
    """Return what the events count, up to the last one; a reset on the way fails the test."""
    found: list[int] = []
    while last not in found:
        event = await stream.next()
        assert event.type != "livefeed-reset"
        found += numbers([event])
    return found


async def opened(stream: EventStreamClient) -> str:
    """Wait for the opening; return the cursor that it gave."""
    opening = await stream.next()
    assert opening.type == "livefeed-open"
    return opening.id


class HeldBack:
    """The site under a server whose writes wait until they are let pass."""

    def __init__(self) -> None:
        self.writing = asyncio.Event()
        self._passing = asyncio.Semaphore(0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def held(message: Any) -> None:
            if message["type"] == "http.response.body":
                self.writing.set()
                await self._passing.acquire()
                self.writing.clear()
            await send(message)

        await get_asgi_application()(scope, receive, held)

    def let_pass(self, count: int = 10_000) -> None:
        for _ in range(count):
            self._passing.release()


# -- 1 ----------------------------------------------------------------------------------------------------------------


async def test_1_what_rolls_back_is_never_delivered_and_the_event_that_gets_its_number_is_also_replayed(
    roster: Roster,
) -> None:
    def phantom() -> None:
        with rolled_back():
            publish(PLAIN, {"n": 1})

    async with open_stream(PLAIN) as stream:
        before = await opened(stream)
        await sync_to_async(phantom)()
        await write(2)
        event = await stream.next()
        assert numbers([event]) == [2]
        assert [position.seq for position in parse_cursor(event.id).positions(PLAIN)] == [1]
        await write(3)
        assert await read(stream, 3) == [3]
    async with open_stream(PLAIN, cursor=before) as again:
        assert await read(again, 3) == [2, 3]


# -- 2 ----------------------------------------------------------------------------------------------------------------


async def test_2_who_connects_between_a_push_and_its_commit_gets_the_event(server: str, roster: Roster) -> None:
    with Writer(server) as slow:
        slow.begin()
        slow.publish(PLAIN, 1)
        await write(2)
        page = await acursor(PLAIN)
        async with open_stream(PLAIN) as stream, open_stream(PLAIN, cursor=page) as of_a_page:
            await opened(stream)
            await opened(of_a_page)
            slow.commit()
            await write(3)
            assert await read(stream, 3) == [1, 3]
            assert await read(of_a_page, 3) == [1, 3]


# -- 3 and 4 ----------------------------------------------------------------------------------------------------------


async def test_3_events_that_are_published_while_the_first_frame_is_written_all_arrive(roster: Roster) -> None:
    site = HeldBack()
    async with open_stream(PLAIN, application=site) as stream:
        await site.writing.wait()
        await write(1, 2, 3)
        site.let_pass()
        assert await read(stream, 3) == [1, 2, 3]


async def test_4_events_that_are_published_while_a_replay_is_written_come_once_and_after_it(
    roster: Roster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "PAGE_EVENTS", 10)
    cursor = await acursor(PLAIN)
    await sync_to_async(append)(PLAIN, *range(1, 26))
    site = HeldBack()
    async with open_stream(PLAIN, cursor=cursor, application=site) as stream:
        site.let_pass(1)
        await opened(stream)
        await site.writing.wait()
        await write(*range(26, 31))
        site.let_pass(1)
        found = await read(stream, 10)
        await site.writing.wait()
        await write(*range(31, 36))
        site.let_pass()
        assert found + await read(stream, 35) == list(range(1, 36))


# -- 5 ----------------------------------------------------------------------------------------------------------------


async def test_5_a_replay_over_several_topics_and_many_pages_has_no_double_and_no_hole(roster: Roster) -> None:
    topics = ["plain:a", "plain:b", "plain:c"]
    count = 2 * hub_module.PAGE_EVENTS + 50
    cursor = await acursor(*topics)
    for topic in topics:
        await sync_to_async(append)(topic, *range(count))
    async with open_stream(*topics, cursor=cursor) as stream:
        await opened(stream)
        events = await stream.take(count * len(topics))
        for topic in topics:
            assert [event.json["n"] for event in events if event.topic == topic] == list(range(count))
        await write(-1, topic="plain:b")
        await write(-2, topic="plain:c")
        assert await read(stream, -2) == [-1, -2]
    async with open_stream(*topics, cursor=events[-1].id) as again:
        assert await read(again, -2) == [-1, -2]


# -- 6 ----------------------------------------------------------------------------------------------------------------


async def test_6_what_two_publishers_push_in_the_other_order_than_it_was_numbered_is_lost_to_nobody(
    roster: Roster, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LIVEFEED_LOOK_INTERVAL = 3600.0
    held: list[Stretch] = []
    await write(0)
    async with open_stream(PLAIN) as stream:
        await opened(stream)
        with monkeypatch.context() as patch:
            patch.setattr(broker, "send", held.append)
            await write(1, 2)
        earlier, later = held
        broker.send(later)
        between = (await stream.take(2))[-1]
        async with open_stream(PLAIN, cursor=between.id) as again:
            await opened(again)
            broker.send(earlier)
            await write(3)
            assert await read(again, 3) == [3]
        assert await read(stream, 3) == [3]
    assert between.json == {"n": 2}


async def test_6_what_two_publishers_commit_in_the_other_order_than_they_pushed_is_lost_to_nobody(
    server: str, roster: Roster
) -> None:
    with Writer(server) as first, Writer(server) as second:
        for writer, n in ((first, 1), (second, 2)):
            writer.begin()
            writer.publish(PLAIN, n)
        async with open_stream(PLAIN) as stream:
            await opened(stream)
            second.commit()
            between = await stream.next()
            assert between.json == {"n": 2}
            async with open_stream(PLAIN, cursor=between.id) as again:
                await opened(again)
                first.commit()
                await write(3)
                assert await read(again, 3) == [1, 3]
            assert await read(stream, 3) == [1, 3]


# -- 7 ----------------------------------------------------------------------------------------------------------------


async def test_7_a_drop_before_the_first_event_is_resumed_from_the_opening_frame(roster: Roster) -> None:
    async with open_stream(PLAIN) as stream:
        await opened(stream)
        kept = stream.parser.last_event_id
    assert kept
    await write(1, 2)
    async with open_stream(PLAIN, cursor=kept) as stream:
        assert (await stream.next()).json["resumed"] is True
        assert await read(stream, 2) == [1, 2]


# -- 8 ----------------------------------------------------------------------------------------------------------------


async def test_8_a_burst_beyond_every_queue_arrives_whole(roster: Roster) -> None:
    """Hundreds in one transaction, and more messages than the layer keeps (100), to a client that does not read."""

    def burst() -> None:
        with transaction.atomic():
            for n in range(500):
                publish(PLAIN, {"n": n})
        for n in range(500, 620):
            publish(PLAIN, {"n": n})

    site = HeldBack()
    async with open_stream(PLAIN, application=site) as stream:
        await site.writing.wait()
        await sync_to_async(burst)()
        site.let_pass()
        assert await read(stream, 619) == list(range(620))


async def reset_of(stream: EventStreamClient, reason: str) -> str:
    """Wait for a reset with this reason; return its fresh cursor."""
    reset = await stream.next()
    assert (reset.type, reset.json["reason"]) == ("livefeed-reset", reason)
    assert reset.json["cursor"] == reset.id
    return reset.id


async def comes_back_to_a_reset(cursor: str, reason: str, next_n: int) -> None:
    """Come back with a cursor that can't be followed; stay, and come back once more with the fresh one."""
    async with open_stream(PLAIN, cursor=cursor) as stream:
        assert (await stream.next()).json["resumed"] is False
        fresh = await reset_of(stream, reason)
        await write(next_n)
        assert await read(stream, next_n) == [next_n]
    async with open_stream(PLAIN, cursor=fresh) as again:
        assert (await again.next()).json["resumed"] is True
        assert await read(again, next_n) == [next_n]


# -- 9 ----------------------------------------------------------------------------------------------------------------


def _emptied() -> None:
    StoredEvent.objects.all().delete()
    StoredTopic.objects.all().delete()


def _restored() -> None:
    """Put the history back to where it was after its first event; what follows gets numbers that were in use."""
    StoredEvent.objects.filter(seq__gt=1).delete()
    StoredTopic.objects.update(head=1)


@pytest.mark.parametrize("loss", [_emptied, _restored])
async def test_9_after_a_loss_of_the_history_who_is_there_and_who_comes_back_get_a_reset_and_not_silence(
    roster: Roster, loss: Callable[[], None]
) -> None:
    async with open_stream(PLAIN) as stream:
        await opened(stream)
        await write(1, 2)
        seen = (await stream.take(2))[-1].id
        await sync_to_async(loss)()
        await write(3)
        await reset_of(stream, "epoch")
        await write(4)
        assert await read(stream, 4) == [4]
    await comes_back_to_a_reset(seen, "epoch", next_n=5)


async def test_9_after_an_expiry_who_comes_back_gets_a_reset_and_not_silence(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_RETENTION_EVENTS = 1
    await write(1)
    seen = await acursor(PLAIN)
    await write(2, 3)
    await sync_to_async(call_command)("livefeed_prune", verbosity=0)
    await comes_back_to_a_reset(seen, "trimmed", next_n=4)


# -- 10: tests/e2e/test_breakages.py ----------------------------------------------------------------------------------

# -- 11 ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=LAYERS)
async def redis_layer(
    request: pytest.FixtureRequest, private_redis: RedisServer, settings: Any
) -> AsyncIterator[RedisServer]:
    """A Redis of the test's own, over which this process sends and receives with each layer in turn."""
    conf = {"BACKEND": request.param, "CONFIG": {"hosts": [private_redis.url]}}
    settings.CHANNEL_LAYERS = {"default": conf}
    layer = channel_layers["default"]
    yield private_redis
    await layer.flush()
    if hasattr(layer, "close_pools"):
        await layer.close_pools()


@pytest.mark.needs("redis")
async def test_11_with_redis_down_a_request_succeeds_as_its_row_was_stored_and_readers_see_it(
    redis_layer: RedisServer, roster: Roster
) -> None:
    async with open_stream(ARTICLES) as stream:
        await opened(stream)
        redis_layer.kill()
        response = await AsyncClient().get("/save/", {"title": "Stored"})
        event = await stream.next()
        async with open_stream(ARTICLES) as late:
            await opened(late)
            second = await AsyncClient().get("/save/", {"title": "Stored too"})
            assert (await late.next()).json["title"] == "Stored too"
    redis_layer.start()
    assert (response.status_code, second.status_code) == (200, 200)
    assert event.json["title"] == "Stored"
    assert await Article.objects.acount() == 2


# -- 12: tests/e2e/test_breakages.py ----------------------------------------------------------------------------------

# -- 13 ---------------------------------------------------------------------------------------------------------------


def test_13_publishers_on_two_topics_in_opposite_order_neither_wait_for_each_other_nor_deadlock(server: str) -> None:
    with Writer(server) as one, Writer(server) as two:
        one.begin()
        two.begin()
        one.publish("a", 1)
        two.publish("b", 2)
        one.publish("b", 1)
        two.publish("a", 2)
        publish("a", {"n": 3})
        publish("b", {"n": 3})
        two.commit()
        one.commit()
    assert data("a") == data("b") == [3, 2, 1]


def data(topic: str) -> list[int]:
    return [event.data["n"] for event in stored(topic)]


# -- 14 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_14_no_publish_trims_and_trimming_takes_a_statement_per_hundreds_of_events(settings: Any) -> None:
    settings.LIVEFEED_RETENTION_EVENTS = 10
    with statements("DELETE") as deletions:
        for n in range(30):
            publish(PLAIN, {"n": n})
        with transaction.atomic():
            for n in range(2_000):
                publish(PLAIN, {"n": n})
    assert deletions == []
    assert get_history().heads([PLAIN])[PLAIN].floor == 0
    with statements() as trimming:
        call_command("livefeed_prune", verbosity=0)
    assert get_history().heads([PLAIN])[PLAIN].floor == 2_020
    assert len(trimming) < 60


# -- 15 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["header", "since", "lastEventId"])
@pytest.mark.parametrize("garbage", ["undefined", "-1", "12345", "a:1,b:2", "%00", "x" * 5000])
async def test_15_a_garbage_cursor_is_one_reset_on_a_stream_that_stays_and_the_next_connection_is_clean(
    roster: Roster, way: str, garbage: str
) -> None:
    await write(1)
    sent: dict[str, Any] = {"cursor": garbage} if way == "header" else {"query": [(way, garbage)]}
    async with open_stream(PLAIN, **sent) as stream:
        opening, reset = await stream.take(2)
        assert opening.json["resumed"] is False
        assert (reset.type, reset.json["reason"]) == ("livefeed-reset", "garbage")
        assert reset.json["cursor"] == reset.id == await acursor(PLAIN)
        await write(2)
        assert await read(stream, 2) == [2]
        assert not stream.ended
    async with open_stream(PLAIN, cursor=reset.id) as again:
        assert (await again.next()).json["resumed"] is True
        assert await read(again, 2) == [2]
