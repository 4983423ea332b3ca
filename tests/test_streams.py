"""Event streams, read through the site's whole ASGI application: opening, resume, resets, keep-alive, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from asgiref.sync import SyncToAsync, ThreadSensitiveContext, markcoroutinefunction, sync_to_async
from django.contrib.auth.models import User
from django.db.backends.signals import connection_created

from livefeed import apublish
from livefeed import hub as hub_module
from livefeed.cursors import NONE_YET, Position, entry, parse_cursor
from livefeed.history import History, acursor, get_history
from livefeed.hub import Hub
from livefeed.models import Lease, StoredEvent, StoredTopic
from livefeed.personal import Asker
from livefeed.personal_streams import PersonalStream, PersonalSubscription
from livefeed.registry import registry
from livefeed.responses import EventStreamResponse
from livefeed.roster import Roster
from livefeed.streams import EventStream, place
from livefeed.tail import Subscription, Tail
from livefeed.testing import EventStreamClient, open_stream
from livefeed.viewers import Viewer
from tests.reading import LIMIT, append, eventually, numbers, parse, pool_threads
from tests.testapp.models import Article

pytest_plugins = ["tests.reading_fixtures"]

PLAIN = "plain"
ARTICLES = "testapp.article"


async def write(topic: str, *ns: int) -> None:
    for n in ns:
        await apublish(topic, {"n": n}, type="tick")


async def read_numbers(stream: EventStreamClient, count: int) -> list[int]:
    """Return what the next ``count`` events count, whatever of livefeed's own comes between."""
    found: list[int] = []
    while len(found) < count:
        found += numbers([await stream.next()])
    return found


# -- the opening ------------------------------------------------------------------------------------------------------


async def test_the_first_block_is_to_the_letter(roster: Roster) -> None:
    await write(PLAIN, 1)
    cursor = await acursor(PLAIN)
    async with open_stream(PLAIN, "nobody.knows") as stream:
        first = await stream.portion()
    pattern = (
        rb"retry: (\d+)\n"
        rb"id: " + cursor.encode() + rb"\n"
        rb"event: livefeed-open\n"
        rb'data: \{"topics":\["plain"\],"refused":\["nobody.knows"\],"cursor":"'
        + re.escape(cursor).encode()
        + rb'","head":"'
        + re.escape(cursor).encode()
        + rb'","resumed":null,"keepalive":15.0,"viewer":"[0-9a-f]{32}"\}\n\n'
    )
    match = re.fullmatch(pattern, first)
    assert match, first
    assert 2000 <= int(match[1]) <= 5000


async def test_the_headers_are_those_that_proxies_caches_and_gzip_leave_alone(roster: Roster) -> None:
    async with open_stream(PLAIN, headers={"accept-encoding": "gzip"}) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["cache-control"] == "private, no-store, no-transform"
        assert stream.headers["x-accel-buffering"] == "no"
        assert stream.headers["content-encoding"] == "identity"
        assert "content-length" not in stream.headers
        assert (await stream.portion()).startswith(b"retry: ")


async def test_the_time_to_come_back_differs_from_connection_to_connection(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS = 0
    times = set()
    for _ in range(8):
        async with open_stream(PLAIN) as stream:
            await stream.next()
            times.add(stream.parser.retry)
    assert len(times) > 1


async def test_a_model_s_changes_arrive_with_type_id_and_data(roster: Roster) -> None:
    async with open_stream(ARTICLES) as stream:
        await stream.next()
        article = await Article.objects.acreate(title="Hello")
        created = await stream.next()
        article.title = "Hello again"
        await article.asave()
        updated = await stream.next()
        pk = article.pk
        await article.adelete()
        deleted = await stream.next()
    assert [event.type for event in (created, updated, deleted)] == ["created", "updated", "deleted"]
    assert created.json == {"pk": pk, "title": "Hello", "votes": 0}
    assert updated.json["title"] == "Hello again"
    assert deleted.json == {"pk": pk}
    positions = [parse_cursor(event.id).positions(ARTICLES)[0].seq for event in (created, updated, deleted)]
    assert positions == [1, 2, 3]


async def test_a_feed_may_leave_out_the_names_of_its_events(roster: Roster) -> None:
    async with open_stream(PLAIN) as stream:
        await stream.next()
        await apublish(PLAIN, {"a": 1}, type="anything")
        await apublish(PLAIN, "<turbo-stream>\n</turbo-stream>", type="anything")
        first, second = await stream.take(2)
    assert (first.type, first.data) == ("message", '{"a":1}')
    assert (second.type, second.data) == ("message", "<turbo-stream>\n</turbo-stream>")


async def test_events_of_type_message_have_no_event_line(roster: Roster) -> None:
    async with open_stream(ARTICLES) as stream:
        await stream.next()
        await apublish(ARTICLES, {"a": 1})
        portion = await stream.portion()
    assert re.fullmatch(rb'id: [\w.-]+\ndata: \{"a":1\}\n\n', portion)


async def test_several_topics_share_one_connection(roster: Roster) -> None:
    async with open_stream(PLAIN, ARTICLES) as stream:
        opening = await stream.next()
        assert opening.json["topics"] == [PLAIN, ARTICLES]
        await write(PLAIN, 1)
        first = await stream.next()
        await Article.objects.acreate(title="Hello")
        second = await stream.next()
        await apublish(ARTICLES, {"who": "ann"}, type="typing", store=False)
        third = await stream.next()
    assert [event.topic for event in (first, second, third)] == [PLAIN, ARTICLES, ARTICLES]
    assert third.id == second.id
    assert {
        len(parse_cursor(event.id).positions(topic)) for event in (first, second) for topic in (PLAIN, ARTICLES)
    } == {1}


async def test_what_is_fleeting_has_no_id_and_is_not_replayed(roster: Roster) -> None:
    cursor = await acursor(ARTICLES)
    async with open_stream(ARTICLES) as stream:
        await stream.next()
        await apublish(ARTICLES, {"who": "ann"}, type="typing", store=False)
        assert await stream.portion() == b'event: typing\ndata: {"who":"ann"}\n\n'
    await Article.objects.acreate(title="Hello")
    async with open_stream(ARTICLES, cursor=cursor) as stream:
        await stream.next()
        assert (await stream.next()).type == "created"


# -- coming back ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["header", "since", "lastEventId", "last_event_id"])
async def test_a_reader_who_comes_back_gets_what_was_missed(roster: Roster, way: str) -> None:
    await write(PLAIN, 1)
    cursor = await acursor(PLAIN)
    await write(PLAIN, 2, 3)
    resume: dict[str, Any] = {"cursor": cursor} if way == "header" else {"query": [(way, cursor)]}
    async with open_stream(PLAIN, **resume) as stream:
        opening = await stream.next()
        assert opening.json["resumed"] is True
        assert opening.id == opening.json["cursor"] == cursor
        assert await read_numbers(stream, 2) == [2, 3]
        assert stream.parser.last_event_id == opening.json["head"]  # caught up
        await write(PLAIN, 4)
        assert await read_numbers(stream, 1) == [4]


async def test_the_opening_says_where_each_topic_stands_and_for_whom_it_is(roster: Roster) -> None:
    await write(PLAIN, 1, 2)
    ann = await User.objects.acreate_superuser("ann")
    async with open_stream(PLAIN, ARTICLES, user=ann, query=[("viewer", "anything"), ("since", "garbage!")]) as stream:
        opening = (await stream.next()).json
    assert opening["head"] == await acursor(PLAIN, ARTICLES)
    assert opening["viewer"] == Viewer(ann, None, "").digest


async def test_the_header_wins_over_the_query(roster: Roster) -> None:
    early = await acursor(PLAIN)
    await write(PLAIN, 1)
    late = await acursor(PLAIN)
    await write(PLAIN, 2)
    async with open_stream(PLAIN, cursor=late, query=[("since", early)]) as stream:
        await stream.next()
        assert await read_numbers(stream, 1) == [2]


async def test_a_page_that_was_made_before_the_first_event_misses_none(roster: Roster) -> None:
    cursor = await acursor(PLAIN)
    assert parse_cursor(cursor).positions(PLAIN) == [NONE_YET]
    await write(PLAIN, 1, 2)
    async with open_stream(PLAIN, cursor=cursor) as stream:
        assert (await stream.next()).json["resumed"] is True
        assert await read_numbers(stream, 2) == [1, 2]


async def test_who_comes_back_within_the_tail_needs_no_history(
    roster: Roster, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.LIVEFEED_LOOK_INTERVAL = 3600.0
    async with open_stream(PLAIN) as stream:
        cursor = (await stream.next()).id
        await write(PLAIN, 1, 2, 3)
        assert await read_numbers(stream, 3) == [1, 2, 3]
    monkeypatch.setattr(get_history(), "read", None)
    async with open_stream(PLAIN, cursor=cursor) as stream:
        await stream.next()
        assert await read_numbers(stream, 3) == [1, 2, 3]


async def test_the_history_is_replayed_page_by_page_and_then_goes_over_into_what_happens(
    roster: Roster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "PAGE_EVENTS", 10)
    cursor = await acursor(PLAIN)
    await sync_to_async(append)(PLAIN, *range(1, 96))
    async with open_stream(PLAIN, cursor=cursor) as stream:
        assert await read_numbers(stream, 95) == list(range(1, 96))
        await write(PLAIN, 96)
        assert await read_numbers(stream, 1) == [96]


async def test_a_burst_during_the_replay_comes_after_it_and_once(
    roster: Roster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "PAGE_EVENTS", 5)
    cursor = await acursor(PLAIN)
    await sync_to_async(append)(PLAIN, *range(1, 41))
    async with open_stream(PLAIN, cursor=cursor) as stream:
        await stream.next()
        found = await read_numbers(stream, 3)
        burst = asyncio.gather(*(write(PLAIN, n) for n in range(41, 61)))
        found += await read_numbers(stream, 57)
        await burst
    assert found[:40] == list(range(1, 41))
    assert sorted(found[40:]) == list(range(41, 61))


async def test_several_topics_are_resumed_with_one_cursor(roster: Roster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "PAGE_EVENTS", 3)
    cursor = await acursor(PLAIN, ARTICLES)
    for n in range(10):
        await write(PLAIN, n)
        await apublish(ARTICLES, {"n": n}, type="tick")
    async with open_stream(PLAIN, ARTICLES, cursor=cursor) as stream:
        await stream.next()
        events = await stream.take(20)
    for topic in (PLAIN, ARTICLES):
        assert [event.json["n"] for event in events if event.topic == topic] == list(range(10))


async def test_every_id_is_a_place_to_come_back_to(roster: Roster) -> None:
    cursor = await acursor(PLAIN, ARTICLES)
    for n in range(4):
        await write(PLAIN, n)
        await apublish(ARTICLES, {"n": n}, type="tick")
    async with open_stream(PLAIN, ARTICLES, cursor=cursor) as stream:
        await stream.next()
        events = [(event.topic, event.json["n"], event.id) for event in await stream.take(8)]
    for index, (_, _, id) in enumerate(events):
        async with open_stream(PLAIN, ARTICLES, cursor=id) as stream:
            await stream.next()
            rest = [(event.topic, event.json["n"], event.id) for event in await stream.take(len(events) - index - 1)]
        assert rest == events[index + 1 :]


async def test_a_topic_that_the_cursor_says_nothing_of_begins_with_what_comes_next(roster: Roster) -> None:
    await write(PLAIN, 1)
    cursor = await acursor(PLAIN)
    await apublish(ARTICLES, {"n": 1})
    await write(PLAIN, 2)
    async with open_stream(PLAIN, ARTICLES, cursor=cursor) as stream:
        await stream.next()
        assert await read_numbers(stream, 1) == [2]
        await apublish(ARTICLES, {"n": 3})
        assert await read_numbers(stream, 1) == [3]


# -- resets -----------------------------------------------------------------------------------------------------------


async def _trimmed(settings: Any) -> str:
    cursor = await acursor(PLAIN)
    await write(PLAIN, 2, 3, 4)
    settings.LIVEFEED_RETENTION_EVENTS = 1
    await sync_to_async(get_history().trim)(registry.retention)
    return cursor


async def _epoch(settings: Any) -> str:
    cursor = await acursor(PLAIN)
    await sync_to_async(get_history().renew_epoch)([PLAIN])
    return cursor


async def _ahead(settings: Any) -> str:
    (position,) = parse_cursor(await acursor(PLAIN)).positions(PLAIN)
    return entry(PLAIN, Position(position.epoch, position.seq + 100))


async def _garbage(settings: Any) -> str:
    return "{not a cursor}"


async def _behind(settings: Any) -> str:
    cursor = await acursor(PLAIN)
    await write(PLAIN, 2, 3, 4)
    settings.LIVEFEED_MAX_REPLAY = 2
    return cursor


WAYS = {"trimmed": _trimmed, "epoch": _epoch, "ahead": _ahead, "garbage": _garbage, "behind": _behind}


@pytest.mark.parametrize("reason", WAYS)
async def test_a_cursor_that_can_t_be_followed_ends_in_a_reset_with_its_reason(
    roster: Roster, settings: Any, reason: str
) -> None:
    await write(PLAIN, 1)
    cursor = await WAYS[reason](settings)
    async with open_stream(PLAIN, cursor=cursor) as stream:
        opening, reset = await stream.take(2)
        now = await acursor(PLAIN)
        await write(PLAIN, 5)
        assert await read_numbers(stream, 1) == [5]
    assert opening.json["resumed"] is False
    assert reset.type == "livefeed-reset"
    assert reset.json == {"topic": PLAIN, "reason": reason, "cursor": now}
    assert reset.id == now


async def test_events_that_somebody_deleted_in_the_middle_end_in_a_reset_and_not_in_silence(roster: Roster) -> None:
    cursor = await acursor(PLAIN)
    await write(PLAIN, 1, 2, 3, 4, 5)
    await roster.hub.stop()  # whoever reads now is served from the history
    await StoredEvent.objects.filter(topic=PLAIN, seq=3).adelete()
    async with open_stream(PLAIN, cursor=cursor) as stream:
        assert await read_numbers(stream, 2) == [1, 2]
        reset = await stream.next()
        assert (reset.type, reset.json["reason"], reset.id) == ("livefeed-reset", "trimmed", await acursor(PLAIN))


async def test_only_the_topics_that_lost_their_continuity_are_reset(roster: Roster) -> None:
    await write(PLAIN, 1)
    await apublish(ARTICLES, {"n": 1})
    cursor = await acursor(PLAIN, ARTICLES)
    await sync_to_async(get_history().renew_epoch)([PLAIN])
    await apublish(ARTICLES, {"n": 2})
    async with open_stream(PLAIN, ARTICLES, cursor=cursor) as stream:
        opening, reset = await stream.take(2)
        assert (opening.json["resumed"], reset.json["topic"], reset.json["reason"]) == (False, PLAIN, "epoch")
        assert await read_numbers(stream, 1) == [2]


@pytest.mark.parametrize("reason", WAYS)
async def test_a_connection_that_is_cut_before_its_resets_gets_them_when_it_comes_back(
    roster: Roster, settings: Any, reason: str
) -> None:
    await write(PLAIN, 1)
    await apublish(ARTICLES, {"n": 1})
    cursor = f"{await acursor(ARTICLES)}.{await WAYS[reason](settings)}"
    for _ in range(2):
        async with open_stream(PLAIN, ARTICLES, cursor=cursor) as stream:
            opening = await stream.next()
            cursor = opening.id  # all that the client got to read
        assert opening.json["resumed"] is False
    async with open_stream(PLAIN, ARTICLES, cursor=cursor) as stream:
        opening, *resets = await stream.take(3 if reason == "garbage" else 2)
    assert PLAIN in {reset.json["topic"] for reset in resets}
    assert {reset.type for reset in resets} == {"livefeed-reset"}
    assert resets[-1].id == await acursor(PLAIN, ARTICLES)


async def test_garbage_resets_every_topic(roster: Roster) -> None:
    async with open_stream(PLAIN, ARTICLES, query=[("since", "!")]) as stream:
        opening, *resets = await stream.take(3)
    assert opening.json["resumed"] is False
    assert [(reset.json["topic"], reset.json["reason"]) for reset in resets] == [
        (PLAIN, "garbage"),
        (ARTICLES, "garbage"),
    ]


async def test_an_open_stream_is_told_when_the_epoch_is_renewed(roster: Roster) -> None:
    await write(PLAIN, 1)
    async with open_stream(PLAIN) as stream:
        await stream.next()
        await sync_to_async(get_history().renew_epoch)()
        reset = await stream.next()
        assert (reset.type, reset.json["reason"]) == ("livefeed-reset", "epoch")
        await write(PLAIN, 2)
        assert await read_numbers(stream, 1) == [2]


async def test_an_open_stream_is_told_when_a_backup_is_restored(
    roster: Roster, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_stream(PLAIN) as stream:
        await stream.next()
        await write(PLAIN, 1, 2, 3)
        before = [await stream.next() for _ in range(3)][-1].id

        def restore() -> None:
            StoredEvent.objects.filter(topic=PLAIN, seq__gt=1).delete()
            StoredTopic.objects.filter(name=PLAIN).update(head=1)

        await sync_to_async(restore)()
        await roster.hub._sweep()
        reset = await stream.next()
        assert (reset.type, reset.json["reason"]) == ("livefeed-reset", "epoch")
        await write(PLAIN, 4)
        assert await read_numbers(stream, 1) == [4]
    async with open_stream(PLAIN, cursor=before) as stream:
        assert [event.json.get("reason") for event in await stream.take(2)] == [None, "epoch"]


async def test_a_slow_reader_whose_events_were_trimmed_meanwhile_is_told(
    hub: Hub, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, subscription = await open_by_hand(hub, "t")
    await anext(stream)
    for stretch in append("t", *range(10)):
        hub.receive(stretch)
    settings.LIVEFEED_RETENTION_EVENTS = 2
    get_history().trim(registry.retention)
    hub.tails["t"].forget_older_half()
    (reset,) = parse(await anext(stream))
    assert (reset.type, reset.json["reason"]) == ("livefeed-reset", "trimmed")
    assert subscription.positions == [Position(hub.tails["t"].epoch, 10)]


async def test_a_slow_reader_that_fell_further_behind_than_a_replay_may_be_is_told(hub: Hub, settings: Any) -> None:
    settings.LIVEFEED_MAX_REPLAY = 5
    stream, subscription = await open_by_hand(hub, "t")
    await anext(stream)
    for stretch in append("t", *range(10)):
        hub.receive(stretch)
    hub.tails["t"].forget_older_half()
    (reset,) = parse(await anext(stream))
    assert (reset.type, reset.json["reason"]) == ("livefeed-reset", "behind")
    assert subscription.positions == [Position(hub.tails["t"].epoch, 10)]


async def test_a_tail_is_not_closed_while_a_reader_finds_its_place(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    append("t", 1)
    (tail,) = await hub.open(["t"])
    ahead = parse_cursor(entry("t", Position(tail.epoch, 2)))

    async def slow_repair(tail: Tail) -> None:
        monkeypatch.setattr(hub_module, "LINGER", -1.0)
        await hub._tidy()

    monkeypatch.setattr(hub, "repair", slow_repair)
    subscription, reasons = await place(hub, ["t"], ahead, garbage=False)
    assert reasons == {0: "ahead"}
    assert hub.tails == {"t": tail}
    hub.detach(subscription)


async def test_an_event_that_came_while_nothing_was_found_in_the_history_does_not_wait_for_the_next(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    append("t", 1)
    stream, subscription = await open_by_hand(hub, "t")
    await anext(stream)
    tail, position, page = hub.tails["t"], subscription.positions[0], hub.page

    async def goes_back(tail: Tail) -> None:
        tail.restart(position)

    async def page_that_is_overtaken(*args: Any) -> Any:
        found = await page(*args)
        waken = asyncio.Event()
        monkeypatch.setattr(hub._flusher, "_watch", lambda laps, began: waken.set())
        for stretch in append("t", 2):
            hub.receive(stretch)
        await waken.wait()
        return found

    monkeypatch.setattr(hub, "repair", goes_back)
    monkeypatch.setattr(hub, "page", page_that_is_overtaken)
    tail.restart(Position("elsewh", 3))
    assert numbers(parse(await asyncio.wait_for(anext(stream), LIMIT))) == [2]


async def test_a_hole_in_the_history_is_told_to_who_comes_upon_it(roster: Roster) -> None:
    cursor = await acursor(PLAIN)
    await write(PLAIN, 1, 2, 3)
    await StoredEvent.objects.filter(topic=PLAIN, seq__lte=2).adelete()
    async with open_stream(PLAIN, cursor=cursor) as stream:
        _, reset = await stream.take(2)
        assert (reset.type, reset.json["reason"]) == ("livefeed-reset", "trimmed")
        await write(PLAIN, 4)
        assert await read_numbers(stream, 1) == [4]


async def test_a_history_without_its_events_is_told_too(roster: Roster) -> None:
    cursor = await acursor(PLAIN)
    await write(PLAIN, 1, 2, 3)
    await StoredEvent.objects.filter(topic=PLAIN).adelete()
    async with open_stream(PLAIN, cursor=cursor) as stream:
        _, reset = await stream.take(2)
        assert (reset.type, reset.json["reason"]) == ("livefeed-reset", "trimmed")


# -- the stream as an object ------------------------------------------------------------------------------------------


ENDED: list[EventStream] = []


async def open_by_hand(hub: Hub, *topics: str, opening: bytes = b"retry: 1\n\n") -> tuple[EventStream, Subscription]:
    subscription, _ = await place(hub, topics, None, garbage=False)
    ENDED.clear()
    viewer = Viewer(None, None, "127.0.0.1")
    names = {topic: topic for topic in topics}
    stream = EventStream(hub, subscription, opening, viewer=viewer, names=names, lease="", on_end=ENDED.append)
    return stream, subscription


async def test_the_response_hands_its_stream_on_as_it_is(hub: Hub) -> None:
    stream, _ = await open_by_hand(hub, "t")
    response = EventStreamResponse(stream)
    assert aiter(response) is stream
    await stream.aclose()


async def test_a_stream_that_a_middleware_wrapped_goes_through_the_wrapper(hub: Hub) -> None:
    stream, _ = await open_by_hand(hub, "t")
    response = EventStreamResponse(stream)
    original = response.streaming_content

    async def louder() -> AsyncIterator[bytes]:
        async for chunk in original:
            yield chunk.upper()

    response.streaming_content = louder()
    wrapped = aiter(response)
    assert await anext(wrapped) == b"RETRY: 1\n\n"
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(wrapped)


async def test_a_stream_ends_by_returning_when_it_is_closed(hub: Hub) -> None:
    stream, _ = await open_by_hand(hub, "t")
    await anext(stream)
    await stream.aclose()
    assert [stream] == ENDED
    assert not hub.tails["t"].readers
    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    await stream.aclose()
    assert [stream] == ENDED


async def test_a_stream_says_goodbye_once_and_ends(hub: Hub) -> None:
    stream, _ = await open_by_hand(hub, "t")
    await anext(stream)
    stream.say_goodbye("revoked")
    stream.say_goodbye("shutdown")
    assert await anext(stream) == b'event: livefeed-closing\ndata: {"reason":"revoked"}\n\n'
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert [stream] == ENDED


async def test_a_stream_that_waits_is_woken_to_say_goodbye(hub: Hub) -> None:
    stream, _ = await open_by_hand(hub, "t")
    await anext(stream)
    last = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    stream.say_goodbye("shutdown")
    assert b"livefeed-closing" in await asyncio.wait_for(last, LIMIT)
    await stream.aclose()


async def test_a_stream_closed_from_a_thread_ends_on_its_loop(hub: Hub) -> None:
    stream, _ = await open_by_hand(hub, "t")
    await anext(stream)
    await asyncio.to_thread(stream.close)
    await eventually(lambda: [stream] == ENDED, "the stream has ended")
    assert not hub.tails["t"].readers
    await asyncio.to_thread(stream.close)
    assert [stream] == ENDED


def test_closing_a_stream_whose_loop_is_gone_is_no_error(memory: History, layer: Any) -> None:
    async def left_behind() -> EventStream:
        hub = Hub(lambda event: b"")
        stream, _ = await open_by_hand(hub, "t")
        await hub.stop()
        return stream

    stream = asyncio.run(left_behind())
    stream.close()


async def test_a_stream_never_raises(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stream, _ = await open_by_hand(hub, "t")
    await anext(stream)

    def broken() -> bytes:
        raise RuntimeError("broken")

    monkeypatch.setattr(Subscription, "take", lambda self: broken())
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert [stream] == ENDED
    assert "A stream of t failed" in caplog.text


async def test_a_history_that_is_away_ends_a_stream_that_needs_it_and_no_other(
    hub: Hub, memory: History, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    behind, _ = await open_by_hand(hub, "t")
    await anext(behind)
    current, _ = await open_by_hand(hub, "t")
    await anext(current)
    for stretch in append("t", 1, 2):
        hub.receive(stretch)
    assert numbers(parse(await anext(current))) == [1, 2]

    def away(topic: str, after: int, limit: int, max_bytes: int) -> Any:
        raise ConnectionError("away")

    monkeypatch.setattr(memory, "read", away)
    hub.tails["t"].forget_older_half()
    with pytest.raises(StopAsyncIteration):
        await anext(behind)
    for stretch in append("t", 3):
        hub.receive(stretch)
    assert numbers(parse(await anext(current))) == [3]
    await current.aclose()


@pytest.mark.parametrize("kind", [EventStream, PersonalStream])
async def test_what_was_read_while_a_right_ended_is_not_sent(
    hub: Hub, memory: History, monkeypatch: pytest.MonkeyPatch, kind: type[EventStream]
) -> None:
    personal = kind is PersonalStream
    subscription, _ = await place(
        hub, ["t"], None, garbage=False, kind=PersonalSubscription if personal else Subscription
    )
    more: dict[str, Any] = {"asker": Asker(hub.pool)} if personal else {}
    viewer = Viewer(None, None, "127.0.0.1")
    stream = kind(hub, subscription, b"", viewer=viewer, names={"t": "t"}, lease="", on_end=ENDED.append, **more)
    for stretch in append("t", 1, 2):
        hub.receive(stretch)
    hub.tails["t"].forget_older_half()
    loop, read = asyncio.get_running_loop(), memory.read

    def slowly(*asked: Any) -> Any:
        loop.call_soon_threadsafe(stream.say_goodbye, "revoked")
        return read(*asked)

    monkeypatch.setattr(memory, "read", slowly)
    (closing,) = parse(await anext(stream))
    assert (closing.type, closing.json) == ("livefeed-closing", {"reason": "revoked"})
    await stream.aclose()


async def test_an_event_in_waiting_takes_the_place_of_a_keep_alive(hub: Hub) -> None:
    stream, _ = await open_by_hand(hub, "t")
    await anext(stream)
    for stretch in append("t", 1):
        hub.receive(stretch)
    stream.keep_alive()
    assert numbers(parse(await anext(stream))) == [1]
    following = asyncio.ensure_future(anext(stream))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not following.done()
    stream.say_goodbye("shutdown")
    assert b"closing" in await following
    await stream.aclose()


async def test_a_cancelled_step_leaves_a_stream_that_can_be_closed(hub: Hub) -> None:
    stream, _ = await open_by_hand(hub, "t")
    await anext(stream)
    step = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    await stream.aclose()
    assert [stream] == ENDED
    assert not hub.tails["t"].readers


async def test_no_event_is_lost_between_taking_and_waiting(hub: Hub) -> None:
    """Events come at every possible moment of a reader's loop; each is there once."""
    stream, _ = await open_by_hand(hub, "t")
    await anext(stream)
    found: list[int] = []

    async def read() -> None:
        async for chunk in stream:
            found.extend(numbers(parse(chunk)))
            if len(found) >= 200:
                return

    reading = asyncio.ensure_future(read())
    for n in range(200):
        for stretch in append("t", n):
            hub.receive(stretch)
        for _ in range(n % 7):
            await asyncio.sleep(0)
    await asyncio.wait_for(reading, LIMIT)
    assert found == list(range(200))
    await stream.aclose()


# -- keep-alive, and the end ------------------------------------------------------------------------------------------


async def test_silence_is_broken_by_a_comment(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_KEEPALIVE = 0.1
    async with open_stream(PLAIN) as stream:
        opening = await stream.next()
        assert opening.json["keepalive"] == 0.1
        assert await stream.portion() == b": keep-alive\n\n"
        assert await stream.portion() == b": keep-alive\n\n"


async def test_a_reader_who_leaves_leaves_nothing_behind(roster: Roster) -> None:
    async def once() -> None:
        async with open_stream(PLAIN, ARTICLES) as stream:
            await stream.next()
            assert len(roster) == 1

    await once()
    tasks = len(asyncio.all_tasks())
    for _ in range(5):
        await once()
    assert len(roster) == 0
    assert not any(tail.readers for tail in roster.hub.tails.values())
    await eventually(_no_lease, "no lease is left")
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks, "no task is left")


async def _no_lease() -> bool:
    return not await Lease.objects.aexists()


async def test_streams_are_forgotten_when_they_ended(roster: Roster, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[EventStream]] = []
    enter = roster.enter

    def noted(stream: EventStream) -> None:
        made.append(weakref.ref(stream))
        enter(stream)

    monkeypatch.setattr(roster, "enter", noted)
    for _ in range(3):
        async with open_stream(PLAIN) as stream:
            await stream.next()
    assert len(made) == 3
    await eventually(lambda: gc.collect() >= 0 and not any(ref() for ref in made), "the streams are gone")


async def test_a_client_that_leaves_before_the_first_byte_leaves_nothing_behind(
    roster: Roster, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A middleware still works on the response when the client goes: Django drops the response without closing it."""
    settings.LIVEFEED_KEEPALIVE = 0.1
    settings.MIDDLEWARE = ["tests.test_streams.SlowMiddleware", *settings.MIDDLEWARE]
    opening = asyncio.ensure_future(_open_and_wait())
    await eventually(lambda: len(roster) == 1, "the stream is there")
    await eventually(SlowMiddleware.reached.is_set, "the middleware has the response")
    opening.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await opening
    await eventually(lambda: len(roster) == 0, "the stream is gone")
    await eventually(_no_lease, "no lease is left")
    SlowMiddleware.reached.clear()


async def _open_and_wait() -> None:
    async with open_stream(PLAIN) as stream:
        await stream.next()


class SlowMiddleware:
    """Holds up every response until its request is cancelled."""

    async_capable = True
    sync_capable = False
    reached = threading.Event()

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: Any) -> Any:
        response = await self.get_response(request)
        self.reached.set()
        await asyncio.Event().wait()
        return response


# -- what an idle stream holds ----------------------------------------------------------------------------------------


async def test_an_open_stream_holds_no_thread_and_no_connection(roster: Roster, settings: Any) -> None:
    """Only the hub's own pool has any, however many streams there are."""
    settings.LIVEFEED_MAX_CONNECTIONS_PER_USER = 0
    settings.LIVEFEED_MAX_CONNECTIONS_PER_SESSION = 0
    settings.LIVEFEED_LOOK_INTERVAL = 3600.0
    user = await User.objects.acreate_user("ann")
    made: list[tuple[str, Any]] = []

    def note(connection: Any, **kwargs: Any) -> None:
        made.append((threading.current_thread().name, connection))

    async with contextlib.AsyncExitStack() as stack:
        await (await stack.enter_async_context(open_stream(ARTICLES, user=user))).next()
        contexts, threads = len(SyncToAsync.context_to_thread_executor), threading.active_count() - len(pool_threads())
        connection_created.connect(note)
        try:
            for _ in range(30):
                stream = await stack.enter_async_context(open_stream(ARTICLES, user=user))
                await stream.next()
        finally:
            connection_created.disconnect(note)
        assert len(SyncToAsync.context_to_thread_executor) == contexts
        of_requests = [connection for name, connection in made if not name.startswith("livefeed_")]
        assert len(of_requests) >= 30
        assert [connection.connection for connection in of_requests] == [None] * len(of_requests)
        await eventually(
            lambda: threading.active_count() - len(pool_threads()) <= threads, "the requests' threads have ended"
        )
        await Article.objects.acreate(title="Hello")
        assert (await stream.next()).json["title"] == "Hello"


async def test_it_is_not_given_back_before_the_middleware_is_done(roster: Roster) -> None:
    """The view only makes the stream; the first step, after all middleware, lets go."""
    stream, _ = await open_by_hand(roster.hub, "t")
    threads: list[threading.Thread] = []

    async def in_a_request() -> None:
        async with ThreadSensitiveContext() as context:
            threads.append(await sync_to_async(threading.current_thread)())
            assert context in SyncToAsync.context_to_thread_executor
            await anext(stream)
            assert context not in SyncToAsync.context_to_thread_executor
            threads.append(await sync_to_async(threading.current_thread)())

    await asyncio.create_task(in_a_request())
    assert threads[0] is not threads[1]
    await stream.aclose()
