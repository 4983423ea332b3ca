from __future__ import annotations

import asyncio
import logging
import re
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from channels.layers import channel_layers
from django.db import transaction
from hypothesis import given
from hypothesis import strategies as st

from livefeed import broker, publish
from livefeed.events import Event, Stretch, new_event

from .layers import FailingLayer
from .processes import run
from .testapp.models import Article
from .writing import database_url, in_thread, stored

names = st.from_regex(r"[A-Za-z0-9._-][A-Za-z0-9._:-]{0,199}", fullmatch=True)

MEMORY = "channels.layers.InMemoryChannelLayer"
PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"
CORE = "channels_redis.core.RedisChannelLayer"
LIMIT = 10.0

#: The environment of a process that shares no database with the tests.
ALONE = {"DJANGO_SETTINGS_MODULE": "tests.settings", "LIVEFEED_TEST_DATABASE": None}


def stretch(topic: str, *numbers: int, epoch: str = "Epoch1") -> Stretch:
    events = (new_event(topic, {"n": number, "text": "Grüße \u2028 🎉"}, "tick") for number in numbers)
    return Stretch(
        topic,
        epoch,
        tuple(
            Event(event.topic, event.type, event.json, event.id, event.created_at, number if epoch else None)
            for event, number in zip(events, numbers, strict=True)
        ),
    )


def count(stretches: list[Stretch]) -> list[int]:
    return [event.data["n"] for one in stretches for event in one.events]


@pytest.fixture(
    params=[
        MEMORY,
        pytest.param(PUBSUB, marks=pytest.mark.needs("redis")),
        pytest.param(CORE, marks=pytest.mark.needs("redis")),
    ]
)
async def layer(request: pytest.FixtureRequest, settings: Any) -> AsyncIterator[Any]:
    """Each layer in turn, with nothing in it; this test's loop serves."""
    conf: dict[str, Any] = {"BACKEND": request.param}
    if request.param != MEMORY:
        conf["CONFIG"] = {"hosts": [request.getfixturevalue("redis_url")]}
    settings.CHANNEL_LAYERS = {"default": conf}
    broker.serve_from(asyncio.get_running_loop())
    layer = channel_layers["default"]
    yield layer
    await layer.flush()
    if request.param == CORE:
        await layer.close_pools()


@pytest.fixture
def background(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Outboxes as a process has them that serves no streams."""
    outboxes = broker._Outboxes()
    monkeypatch.setattr(broker, "_outboxes", outboxes)
    return outboxes


@pytest.fixture
def failing(settings: Any, background: Any, monkeypatch: pytest.MonkeyPatch) -> type[FailingLayer]:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "tests.layers.FailingLayer"}}
    monkeypatch.setattr(FailingLayer, "away", True)
    monkeypatch.setattr(FailingLayer, "asked", threading.Event())
    return FailingLayer


# -- names ----------------------------------------------------------------------------------------------------------


@given(names)
def test_a_group_s_name_is_one_that_every_layer_takes(topic: str) -> None:
    name = broker.group_name(topic)
    assert re.fullmatch(r"[a-zA-Z0-9\-_.]+", name)
    assert len(name) < 100


def test_each_topic_has_a_group_of_its_own() -> None:
    assert len({broker.group_name(f"build:{number}") for number in range(1000)}) == 1000
    assert broker.group_name("News") != broker.group_name("news")


def test_every_process_of_a_site_gives_a_topic_the_same_group() -> None:
    script = "import django; django.setup(); from livefeed import broker; print(broker.group_name('build:42'))"
    assert run([sys.executable, "-c", script], env=ALONE, limit=60).strip() == (broker.group_name("build:42"))


def test_two_sites_do_not_share_groups(settings: Any) -> None:
    drawn = [broker.group_name("build")]
    settings.SECRET_KEY = "of another site"
    drawn.append(broker.group_name("build"))
    settings.LIVEFEED_PREFIX = "one"
    drawn.append(broker.group_name("build"))
    settings.LIVEFEED_PREFIX = "two" * 13
    drawn.append(broker.group_name("build"))
    assert len(set(drawn)) == 4
    assert all(len(name) < 100 for name in drawn)
    assert not any(settings.SECRET_KEY in name for name in drawn)


def test_sites_with_one_prefix_share_their_groups(settings: Any) -> None:
    settings.LIVEFEED_PREFIX = "shared"
    before = broker.group_name("build")
    settings.SECRET_KEY = "of another site"
    assert broker.group_name("build") == before


# -- there and back -------------------------------------------------------------------------------------------------


async def received(inbox: broker.Inbox, events: int) -> list[Stretch]:
    """Receive messages until so many events are there."""
    messages: list[Stretch] = []
    async with asyncio.timeout(LIMIT):
        while sum(len(message.events) for message in messages) < events:
            messages.append(await inbox.receive())
    return messages


@pytest.mark.usefixtures("layer")
async def test_what_is_sent_arrives_as_it_was() -> None:
    inbox = broker.Inbox()
    await inbox.join("build")
    kept, gone = stretch("build", 1, 2), stretch("build", 3, epoch="")
    broker.send(kept)
    broker.send(gone)
    assert await received(inbox, 3) == [kept, gone]


@pytest.mark.usefixtures("layer")
async def test_what_is_sent_from_other_threads_arrives_in_the_order_of_each() -> None:
    inbox = broker.Inbox()
    await inbox.join("build")

    def send() -> None:
        for number in range(20):
            broker.send(stretch("build", number))

    await asyncio.to_thread(in_thread, send)
    assert count(await received(inbox, 20)) == list(range(20))


@pytest.mark.usefixtures("layer")
async def test_an_inbox_gets_the_topics_it_joined_and_no_others() -> None:
    inbox = broker.Inbox()
    await inbox.join("one")
    await inbox.join("two")
    await inbox.join("two")
    for topic, number in (("one", 1), ("none", 2), ("two", 3)):
        broker.send(stretch(topic, number))
    assert count(await received(inbox, 2)) == [1, 3]
    await inbox.leave("one")
    for topic, number in (("one", 4), ("two", 5)):
        broker.send(stretch(topic, number))
    assert count(await received(inbox, 1)) == [5]


@pytest.mark.usefixtures("layer")
async def test_every_inbox_gets_what_is_sent() -> None:
    inboxes = [broker.Inbox() for _ in range(3)]
    for inbox in inboxes:
        await inbox.join("build")
    broker.send(stretch("build", 1))
    assert [count(await received(inbox, 1)) for inbox in inboxes] == [[1]] * 3


@pytest.mark.usefixtures("layer")
async def test_very_many_events_arrive_in_order_in_messages_of_a_bounded_size() -> None:
    inbox = broker.Inbox()
    await inbox.join("build")
    numbers = list(range(1, 2 * broker.MESSAGE_EVENTS + 8))
    broker.send(stretch("build", *numbers))
    messages = await received(inbox, len(numbers))
    assert count(messages) == numbers
    assert max(len(message.events) for message in messages) == broker.MESSAGE_EVENTS


@pytest.mark.usefixtures("layer")
async def test_what_waits_together_is_one_message_per_topic() -> None:
    inbox = broker.Inbox()
    await inbox.join("one")
    await inbox.join("two")
    for number in range(1, 11):
        broker.send(stretch("one", number))
        broker.send(stretch("two", number))
    messages = await received(inbox, 20)
    assert len(messages) < 10
    for topic in ("one", "two"):
        assert count([message for message in messages if message.topic == topic]) == list(range(1, 11))


async def test_a_message_that_is_not_ours_is_an_error_that_can_be_told_from_a_failure(layer: Any) -> None:
    inbox = broker.Inbox()
    await inbox.join("build")
    for message in ({"type": "x"}, {"type": "x", "body": b"nonsense"}, {"type": "x", "body": b"[]"}):
        await layer.group_send(broker.group_name("build"), message)
        with pytest.raises((ValueError, TypeError, KeyError)):
            await asyncio.wait_for(inbox.receive(), LIMIT)
    broker.send(stretch("build", 1))
    assert count(await received(inbox, 1)) == [1]


async def test_an_inbox_keeps_its_channel_so_that_a_layer_has_nobody_else_to_fill(layer: Any) -> None:
    inbox = broker.Inbox()
    channels = set()
    for _ in range(3):
        await inbox.join("build")
        channels.add(inbox._channel)
        await layer.group_discard(broker.group_name("build"), inbox._channel)  # it forgot us
    await inbox.join("build")
    assert channels == {inbox._channel}
    broker.send(stretch("build", 1))
    assert count(await received(inbox, 1)) == [1]


class Tired(Exception):
    """What redis-py raises when a socket was silent for too long; none of Python's own."""


Tired.__name__ = "TimeoutError"


async def test_a_layer_that_grew_tired_of_waiting_is_asked_again(layer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = broker.Inbox()
    await inbox.join("build")
    receive, tired = layer.receive, [Tired("Timeout reading from socket"), Tired("once more")]

    async def impatient(channel: str) -> Any:
        if tired:
            raise tired.pop()
        return await receive(channel)

    monkeypatch.setattr(layer, "receive", impatient)
    broker.send(stretch("build", 1))
    assert count(await received(inbox, 1)) == [1]
    assert not tired


@pytest.mark.usefixtures("layer")
async def test_a_site_does_not_get_the_events_of_another_one_on_the_same_layer(settings: Any) -> None:
    settings.LIVEFEED_PREFIX = "one"
    one = broker.Inbox()
    await one.join("build")
    settings.LIVEFEED_PREFIX = "two"
    two = broker.Inbox()
    await two.join("build")
    broker.send(stretch("build", 2))
    assert count(await received(two, 1)) == [2]
    settings.LIVEFEED_PREFIX = "one"
    broker.send(stretch("build", 1))
    assert count(await received(one, 1)) == [1]


async def test_an_inbox_says_when_the_layer_would_forget_it(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": MEMORY, "CONFIG": {"group_expiry": 77}}}
    assert broker.Inbox().expiry == 77.0


async def test_a_setting_names_the_layer(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": MEMORY}, "live": {"BACKEND": MEMORY}}
    settings.LIVEFEED_CHANNEL_LAYER = "live"
    assert broker.channel_layer() is channel_layers["live"]
    assert broker.channel_layer() is not channel_layers["default"]


async def test_a_site_without_a_layer_has_one_in_memory(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {}
    broker.serve_from(asyncio.get_running_loop())
    inbox = broker.Inbox()
    await inbox.join("build")
    await asyncio.to_thread(broker.send, stretch("build", 1))
    assert count(await received(inbox, 1)) == [1]


# -- from a process that serves no streams --------------------------------------------------------------------------


@pytest.mark.usefixtures("failing")
def test_a_process_without_streams_sends_from_one_background_thread() -> None:
    FailingLayer.away = False
    before = set(threading.enumerate())
    for _ in range(5):
        FailingLayer.asked.clear()
        in_thread(lambda: broker.send(stretch("build", 1)))
        assert FailingLayer.asked.wait(LIMIT)
    (thread,) = set(threading.enumerate()) - before
    assert thread.name == "livefeed-broker"
    assert thread.daemon


@pytest.mark.usefixtures("failing")
def test_when_the_serving_loop_is_closed_the_background_takes_over() -> None:
    loop = asyncio.new_event_loop()
    broker.serve_from(loop)
    loop.close()
    broker.send(stretch("build", 1))
    assert FailingLayer.asked.wait(LIMIT)


REDIS = """
from django.conf import settings
settings.CHANNEL_LAYERS = {{"default": {{"BACKEND": {backend!r}, "CONFIG": {{"hosts": [{url!r}]}}}}}}
import django
django.setup()
from livefeed import publish
for number in range(3):
    publish("build", {{"n": number}}, store=False)
"""


@pytest.mark.needs("redis")
@pytest.mark.parametrize("backend", [PUBSUB, CORE])
async def test_a_command_that_ends_at_once_has_sent_its_last_events(
    backend: str, redis_url: str, settings: Any
) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "CONFIG": {"hosts": [redis_url]}}}
    inbox = broker.Inbox()
    await inbox.join("build")
    script = REDIS.format(backend=backend, url=redis_url)
    await asyncio.to_thread(run, [sys.executable, "-c", script], env=ALONE, limit=60)
    assert count(await received(inbox, 3)) == [0, 1, 2]
    await channel_layers["default"].flush()
    if backend == CORE:
        await channel_layers["default"].close_pools()


FORK = """
import os, sys, threading
from django.conf import settings
settings.LIVEFEED_RELAY_PAUSE = 0  # else one numbers and sends for both
import django
django.setup()
from django.db import connections
from livefeed import broker, publish

LOG = os.open({path!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

class Recorder:
    async def group_send(self, group, message):
        os.write(LOG, f"{{os.getpid()}}\\n".encode())

broker.channel_layer = lambda: Recorder()
publish("build", "parent")
connections.close_all()
child = os.fork()
publish("build", "child" if child == 0 else "parent")
connections.close_all()
if child:
    code = os.waitpid(child, 0)[1]
    sys.exit(os.waitstatus_to_exitcode(code))
"""


@pytest.mark.django_db(transaction=True)
def test_a_forked_process_publishes_and_sends_as_its_parent_does(tmp_path: Path) -> None:
    path = tmp_path / "sent"
    env = {"DJANGO_SETTINGS_MODULE": "tests.settings", "LIVEFEED_TEST_DATABASE": database_url()}
    run([sys.executable, "-c", FORK.format(path=str(path))], env=env, limit=60)
    assert sorted(event.data for event in stored("build")) == ["child", "parent", "parent"]
    senders = path.read_text().split()
    assert sorted(senders.count(pid) for pid in set(senders)) == [1, 2]


HANGING = """
import asyncio
import django
django.setup()
from livefeed import broker, publish

class Hanging:
    async def group_send(self, group, message):
        await asyncio.get_running_loop().create_future()

broker.channel_layer = lambda: Hanging()
publish("build", 1, store=False)
"""


def test_a_command_ends_although_the_layer_never_answers() -> None:
    run([sys.executable, "-c", HANGING], env=ALONE, limit=30)


SLOW = """
import asyncio, sys
import django
django.setup()
from livefeed import broker, recheck

class Slow:
    async def group_send(self, group, message):
        await asyncio.sleep(2.5)
        sys.stdout.write(message["type"])
        sys.stdout.flush()

broker.channel_layer = lambda: Slow()
recheck(topic="build")
"""


def test_a_command_on_a_busy_machine_says_its_last_word_before_it_ends() -> None:
    assert run([sys.executable, "-c", SLOW], env=ALONE, limit=60) == "livefeed.revocations"


# -- a failing layer never fails the writer -------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_layer_that_is_away_fails_no_writer_and_is_said_once(
    failing: type[FailingLayer], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "livefeed"):
        for number in range(5):
            failing.asked.clear()
            publish("build", {"secret": number})
            assert failing.asked.wait(LIMIT)
        failing.asked.clear()
        with transaction.atomic():
            Article.objects.create(title="One")
        assert failing.asked.wait(LIMIT)
    assert len(stored("build")) == 5
    assert len(stored("testapp.article")) == 1
    warnings = [record.getMessage() for record in caplog.records if record.name == "livefeed.broker"]
    assert len(warnings) == 1
    assert "Error 111" in warnings[0]
    assert "secret" not in caplog.text


def test_after_the_layer_came_back_its_next_failure_is_said_again(
    failing: type[FailingLayer], background: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "livefeed"):
        for away in (True, False, True):
            failing.away = away
            broker.send(stretch("build", 1))
            background.flush(LIMIT)
            assert failing.asked.wait(LIMIT)
    assert len(caplog.records) == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("background")
@pytest.mark.parametrize("backend", ["tests.layers.BrokenLayer", "no.such.Layer"])
def test_a_layer_that_can_t_even_be_made_fails_no_writer(backend: str, settings: Any, background: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend}}
    publish("build", 1)
    with transaction.atomic():
        publish("build", 2)
    background.flush(LIMIT)
    assert [event.data for event in stored("build")] == [1, 2]


EVENT_BYTES = stretch("build", 100).events[0].size


@pytest.mark.parametrize(("limit", "value"), [("OUTBOX_EVENTS", 10), ("OUTBOX_BYTES", 10 * EVENT_BYTES)])
async def test_while_the_layer_is_slow_no_more_than_the_limit_waits_and_what_is_dropped_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, limit: str, value: int
) -> None:
    released = asyncio.Event()
    messages: list[Any] = []

    class Slow:
        async def group_send(self, group: str, message: Any) -> None:
            await released.wait()
            messages.append(message)

    monkeypatch.setattr(broker, "channel_layer", Slow)
    monkeypatch.setattr(broker, limit, value)
    loop = asyncio.get_running_loop()
    outbox = broker.Outbox(loop)
    with caplog.at_level(logging.WARNING, "livefeed"):
        for number in range(100, 200):
            outbox.put(stretch(f"build:{number}", number))
        scheduled = loop.create_future()
        loop.call_soon(scheduled.set_result, None)
        await scheduled
    released.set()
    await asyncio.wait_for(outbox.flushed(), LIMIT)
    assert len(messages) == 10
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_layer_that_hangs_is_given_up_and_said_once_and_what_follows_is_sent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[Any] = []

    class Hangs:
        async def group_send(self, group: str, message: Any) -> None:
            taken.append(group)
            if len(taken) <= 2:
                await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(broker, "channel_layer", Hangs)
    monkeypatch.setattr(broker, "SEND_SECONDS", 0.01)
    outbox = broker.Outbox(asyncio.get_running_loop())
    with caplog.at_level(logging.WARNING, "livefeed"):
        for number in range(4):
            outbox._put(stretch(f"build:{number}", number))
        await asyncio.wait_for(outbox.flushed(), LIMIT)
    assert len(taken) == 4
    assert len(caplog.records) == 1


def test_sending_waits_for_nothing(background: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    taken: list[bool] = []

    class Slow:
        async def group_send(self, group: str, message: Any) -> None:
            taken.append(await asyncio.to_thread(released.wait, LIMIT))

    monkeypatch.setattr(broker, "channel_layer", Slow)
    for number in range(3):
        broker.send(stretch(f"build:{number}", number))
    assert taken == []
    released.set()
    background.flush(LIMIT)
    assert taken == [True] * 3, "a message was taken before send() returned, or send() waited"


def test_where_no_file_can_be_opened_a_publisher_is_not_failed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> asyncio.AbstractEventLoop:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(broker, "_outboxes", broker._Outboxes())
    monkeypatch.setattr(asyncio, "new_event_loop", refuse)
    broker.send(stretch("build", 1))
    assert "Too many open files" in caplog.text


def test_where_no_thread_can_be_started_a_publisher_is_not_failed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(broker, "_outboxes", broker._Outboxes())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    broker.send(stretch("build", 1))
    assert "can't start new thread" in caplog.text
