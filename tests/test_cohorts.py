"""Readers in step: what is the same for all of them is kept once, and each still gets its own, in order, once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from livefeed.cursors import parse_cursor
from livefeed.history import get_history
from livefeed.hub import Hub
from livefeed.outlets import Message, Rest
from livefeed.streams import EventStream, place
from livefeed.tail import Subscription
from livefeed.viewers import Viewer
from livefeed.window import CHUNK_BYTES
from tests.reading import append, eventually, fleeting, numbers, parse

pytest_plugins = ["tests.reading_fixtures"]


class Client:
    """The server's end of one connection, whose client can stop to read, and whose writes can fail."""

    def __init__(self, hub: Hub, subscription: Subscription) -> None:
        self.written: list[bytes] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.error: Exception | None = None
        self.is_cut = False
        self.subscription = subscription
        self.stream = EventStream(
            hub, subscription, b"", viewer=Viewer(None, None, ""), names={}, lease="", on_end=lambda stream: None
        )
        self.stream.use(self)
        self.task = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async for chunk in self.stream:
            await self.write({"body": chunk})

    async def write(self, message: Message) -> None:
        if self.error is not None:
            raise self.error
        self.written.append(message["body"])
        await self.reads.wait()

    def wait_for(self, rest: Rest) -> Rest:
        return rest

    def fail(self) -> None:
        self.is_cut = True

    @property
    def is_in_step(self) -> bool:
        return any(self.subscription in tail.cohort.readers() for tail in self.subscription.tails)

    @property
    def events(self) -> list[Any]:
        return parse(b"".join(self.written))

    @property
    def got(self) -> list[int]:
        return numbers(self.events)

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        await self.stream.aclose()


Join = Callable[..., Any]


@pytest.fixture
async def join(hub: Hub) -> Any:
    """Return what brings a client, who waits for events on some topics."""
    made: list[Client] = []

    async def joined(*topics: str) -> Client:
        subscription, _ = await place(hub, topics, None, garbage=False)
        made.append(Client(hub, subscription))
        await eventually(lambda: made[-1].is_in_step, "it waits in step")
        return made[-1]

    yield joined
    for client in made:
        await client.leave()
    assert not any(tail.readers or tail.cohort for tail in hub.tails.values())


async def receive(hub: Hub, topic: str, *ns: int) -> None:
    """Let the layer bring events."""
    for stretch in append(topic, *ns):
        hub.receive(stretch)


async def test_readers_in_step_get_the_same_bytes_and_no_position_of_their_own_is_moved(hub: Hub, join: Join) -> None:
    clients = [await join("t") for _ in range(3)]
    before = [client.subscription.positions[0] for client in clients]
    for n in range(3):
        await receive(hub, "t", n)
        await eventually(lambda n=n: all(client.got == list(range(n + 1)) for client in clients), "everybody has it")
    assert len({id(client.written[2]) for client in clients}) == 1
    assert [client.subscription.positions[0] for client in clients] == before
    clients[0].subscription.step_out()
    assert clients[0].subscription.positions[0].seq == 3


async def test_who_reads_several_topics_gets_ids_of_its_own(hub: Hub, join: Join) -> None:
    one, other = await join("shared", "own:1"), await join("own:2", "shared")
    await receive(hub, "own:1", 1)
    await receive(hub, "own:2", 2)
    await eventually(lambda: one.got == [1] and other.got == [2], "their own are there")
    await receive(hub, "shared", 3)
    await receive(hub, "own:1", 4)
    await eventually(lambda: one.got == [1, 3, 4] and other.got == [2, 3], "all are there")

    def places(client: Client) -> list[tuple[int, int]]:
        cursors = [parse_cursor(event.id) for event in client.events]
        own = next(tail.topic for tail in client.subscription.tails if tail.topic != "shared")
        return [(cursor.positions("shared")[0].seq, cursor.positions(own)[0].seq) for cursor in cursors]

    assert places(one) == [(0, 1), (1, 1), (1, 2)]
    assert places(other) == [(0, 1), (1, 1)]
    assert [event.topic for event in one.events] == ["own:1", "shared", "own:1"]


async def test_several_topics_that_move_in_one_flush_are_one_write_in_the_order_of_publishing(
    hub: Hub, join: Join
) -> None:
    client, alone = await join("a", "b"), await join("b")
    for n in range(6):
        await receive(hub, "ab"[n % 2], n)
    await eventually(lambda: client.got and alone.got, "they are there")
    assert (client.got, alone.got) == ([0, 1, 2, 3, 4, 5], [1, 3, 5])
    assert (len(client.written), len(alone.written)) == (1, 1)
    assert parse_cursor(client.events[-1].id).positions("a")[0].seq == 3
    await receive(hub, "a", 6)
    await eventually(lambda: client.got[-1] == 6, "it goes on")
    assert [parse_cursor(client.events[-1].id).positions(topic)[0].seq for topic in "ab"] == [4, 3]


@pytest.mark.parametrize("topics", [("t",), ("t", "u")])
async def test_what_is_fleeting_comes_once_and_behind_what_is_stored(
    hub: Hub, join: Join, topics: tuple[str, ...]
) -> None:
    clients = [await join(*topics) for _ in range(2)]
    clients[0].reads.clear()
    await receive(hub, "t", 1)
    hub.receive(fleeting("t", {"n": 2}))
    await eventually(lambda: all(client.got == [1, 2] for client in clients), "both are there")
    assert [len(client.written) for client in clients] == [1, 1]
    clients[0].reads.set()
    await eventually(lambda: clients[0].is_in_step, "it waits in step again")
    hub.receive(fleeting("t", {"n": 3}))
    await eventually(lambda: all(client.got == [1, 2, 3] for client in clients), "it is there")


@pytest.mark.parametrize("topics", [("t",), ("t", "u")])
async def test_a_write_that_has_to_wait_parts_one_reader_from_the_others(
    hub: Hub, join: Join, topics: tuple[str, ...]
) -> None:
    clients = [await join(*topics) for _ in range(5)]
    slow = clients[2]
    slow.reads.clear()
    for n in range(4):
        await receive(hub, "t", n)
        await eventually(lambda n=n: clients[4].got == list(range(n + 1)), "the others have it")
    assert slow.got == [0]
    assert [client.is_in_step for client in clients] == [True, True, False, True, True]
    slow.reads.set()
    await eventually(lambda: slow.is_in_step, "it waits in step again")
    assert [client.got for client in clients] == [[0, 1, 2, 3]] * 5
    assert len(slow.written) == 2
    await receive(hub, "t", 4)
    await eventually(lambda: all(client.got[-1] == 4 for client in clients), "everybody has it")


async def test_a_write_that_fails_cuts_one_connection(hub: Hub, join: Join) -> None:
    clients = [await join("t") for _ in range(3)]
    clients[1].error = OSError("gone")
    await receive(hub, "t", 1)
    await eventually(lambda: clients[2].got == [1], "the others have it")
    assert [client.is_cut for client in clients] == [False, True, False]
    assert [client.is_in_step for client in clients] == [True, False, True]


@pytest.mark.parametrize("topics", [("t",), ("t", "u")])
async def test_more_than_a_chunk_is_written_by_each_at_its_own_pace(
    hub: Hub, join: Join, topics: tuple[str, ...]
) -> None:
    clients = [await join(*topics) for _ in range(2)]
    count = CHUNK_BYTES // 40
    await receive(hub, "t", *range(count))
    await eventually(lambda: all(client.got == list(range(count)) for client in clients), "all have all")
    assert max(len(chunk) for chunk in clients[0].written) < 2 * CHUNK_BYTES
    await eventually(lambda: all(client.is_in_step for client in clients), "they wait in step again")


async def test_more_than_a_chunk_of_several_topics_is_no_more_than_that_at_a_time(hub: Hub, join: Join) -> None:
    client = await join("a", "b")
    count = CHUNK_BYTES // 80
    await receive(hub, "a", *range(count))
    await receive(hub, "b", *range(count, 2 * count))
    await eventually(lambda: len(client.got) == 2 * count, "all are there")
    assert max(len(chunk) for chunk in client.written) < CHUNK_BYTES + 200


async def test_who_comes_while_a_flush_is_due_gets_what_is_new_once(hub: Hub, join: Join) -> None:
    early = await join("t")
    await receive(hub, "t", 1)  # the flush is in the loop's next turn
    subscription, _ = await place(hub, ["t"], None, garbage=False)
    late = Client(hub, subscription)
    await eventually(lambda: early.got == [1] and late.is_in_step, "both wait")
    await receive(hub, "t", 2)
    await eventually(lambda: early.got == [1, 2] and late.got == [2], "both have it")
    await late.leave()


async def test_a_topic_that_begins_anew_is_told_to_all_in_step(hub: Hub, join: Join) -> None:
    clients = [await join("t"), await join("t", "u")]
    await receive(hub, "t", 1)
    await eventually(lambda: all(client.got == [1] for client in clients), "everybody has it")
    get_history().renew_epoch(["t"])
    await hub.repair(hub.tails["t"])
    await eventually(
        lambda: all([event.type for event in client.events][-1] == "livefeed-reset" for client in clients), "it is told"
    )
    await eventually(lambda: all(client.is_in_step for client in clients), "they wait in step again")
    await receive(hub, "t", 2)
    await eventually(lambda: all(client.got == [1, 2] for client in clients), "everybody has it")


async def test_who_is_in_step_has_been_written_to_when_the_others_were(hub: Hub, join: Join) -> None:
    client = await join("t")
    before = client.stream.written_at
    await eventually(lambda: asyncio.get_running_loop().time() > before, "time goes by")
    await receive(hub, "t", 1)
    await eventually(lambda: client.got == [1], "it is there")
    written = client.stream.written_at
    assert written > before
    client.subscription.step_out()
    assert client.stream.written_at == written
    client.stream.keep_alive()
    assert client.written[-1] == b": keep-alive\n\n"
    assert client.stream.written_at >= written
    assert client.is_in_step


async def test_who_is_told_goodbye_gets_nothing_behind_it(hub: Hub, join: Join) -> None:
    client, other = await join("t"), await join("t")
    await receive(hub, "t", 1)
    client.stream.say_goodbye("revoked")
    await eventually(lambda: other.got == [1], "the other has it")
    await eventually(client.task.done, "it has ended")
    assert client.events[-1].type == "livefeed-closing"
