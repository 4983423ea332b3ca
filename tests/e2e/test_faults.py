"""Everything around the demo fails, on real processes, and its readers see what was committed, in order, once.

`make faults` runs the same at length. The tests at the end hold the judge to its office: it finds what it is to find.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.fault_proxy import Proxy
from tests.e2e.fault_reader import Counted, Dechunker, Reader
from tests.e2e.fault_site import LAYERS
from tests.e2e.fault_truth import Note, Stored, differences
from tests.e2e.faults import Plan, run
from tests.processes import free_port

TOPIC = "blog.entry"
KINDS = 13


@pytest.mark.needs("time", "postgres", "redis")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_readers_see_just_what_was_committed_while_everything_fails(
    layer: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    plan = Plan(
        readers=60,
        deliveries=10_000,
        faults=KINDS,
        seed=sorted(LAYERS).index(layer),
        layer=layer,
        rate=25,
        pause=1.2,
        nap=5,
    )
    report = run(plan, tmp_path, tell=print)
    print(*report.lines(), sep="\n")
    assert report.broken == []
    assert len(report.faults) == KINDS
    assert report.deliveries >= plan.deliveries
    record_property("deliveries", report.deliveries)
    record_property("faults", report.faults.total())
    record_property("reconnects", report.ends.total())


# -- the judge --------------------------------------------------------------------------------------------------------


def reader(*keys: str) -> Reader:
    """Return a reader of TOPIC that has seen these keys."""
    reader = Reader("reader 1", [TOPIC], [], random.Random(1))
    for key in keys:
        reader.seen[TOPIC].add(key, 0)
    return reader


def notes(*keys: str) -> list[Note]:
    """Return what one writer noted: `a`, `b` … in the order of its commits."""
    return [Note(TOPIC, key, 0, 1, None) for key in keys]


def history(*keys: str) -> list[Stored]:
    return [Stored(TOPIC, number, key) for number, key in enumerate(keys, 1)]


def test_the_judge_is_content_where_all_agree() -> None:
    assert differences(notes(*"abc"), history(*"abc"), [reader(*"abc")]) == []


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        ("ac", "reader 1 on blog.entry lacks 1: b (number 2 of 3)"),
        ("", "reader 1 on blog.entry lacks 3"),
        ("abbc", "reader 1 on blog.entry has too often 1: b"),
        ("abxc", "reader 1 on blog.entry has too often 1: x (found at 3 of 4)"),
        ("acb", "reader 1 on blog.entry: all events, in another order"),
    ],
)
def test_the_judge_finds_what_a_reader_missed_or_saw_twice_or_too_early(seen: str, verdict: str) -> None:
    (found,) = differences(notes(*"abc"), history(*"abc"), [reader(*seen)])
    assert verdict in found


@pytest.mark.parametrize(
    ("noted", "kept", "verdict"),
    [
        ("abc", "ab", "the history lacks 1: c"),
        ("ab", "abx", "the history has too often 1: x"),
        ("abc", "acb", "the events of writer 1 are not in the order of their commits"),
    ],
)
def test_the_judge_compares_the_history_with_what_was_committed(noted: str, kept: str, verdict: str) -> None:
    (found,) = differences(notes(*noted), history(*kept), [reader(*kept)])
    assert verdict in found


def test_the_judge_finds_holes_in_the_numbers_and_rows_without_one() -> None:
    events = [Stored(TOPIC, 1, "a"), Stored(TOPIC, 3, "b"), Stored(TOPIC, None, "c")]
    (found,) = differences(notes(*"abc"), events, [reader(*"abc")])
    assert "the numbers of the history are not 1 to 3: at 2 is 3" in found


def test_the_judge_finds_changes_to_one_row_in_another_order_than_they_were_committed() -> None:
    noted = [Note(TOPIC, "a", 0, 1, 7), Note(TOPIC, "b", 0, 2, 7)]
    (found,) = differences(noted, history(*"ba"), [reader(*"ba")])
    assert "the events of entry 7 are not in the order of their commits" in found


def test_the_judge_takes_no_reset_for_granted() -> None:
    told = reader(*"abc")
    told.resets.append("epoch")
    (found,) = differences(notes(*"abc"), history(*"abc"), [told])
    assert "1 resets that no fault explains" in found


# -- the instruments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_body_in_chunks_is_put_together_however_it_is_cut(size: int) -> None:
    text = b"5\r\nhello\r\n1;note=x\r\n,\r\nA\r\n new world\r\n0\r\n\r\n"
    body = Dechunker()
    assert b"".join(body.feed(text[at : at + size]) for at in range(0, len(text), size)) == b"hello, new world"
    assert body.ended


def test_a_body_without_chunks_ends_where_its_length_says() -> None:
    body = Counted(5)
    assert [body.feed(b"hel"), body.ended, body.feed(b"lo"), body.ended] == [b"hel", False, b"lo", True]


async def echo(stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, up to a "bye"."""
    data = b""
    with suppress(OSError):
        while not data.endswith(b"bye") and (data := await stream.read(100)):
            writer.write(data)
    writer.close()


@asynccontextmanager
async def proxied_echo() -> AsyncIterator[Proxy]:
    """Put a proxy before a server that sends back what it gets."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, Proxy([server.sockets[0].getsockname()[1]]) as proxy:
        yield proxy


async def test_a_proxy_carries_both_ways_and_tells_the_end() -> None:
    async with proxied_echo() as proxy:
        stream, writer = await asyncio.open_connection("127.0.0.1", proxy.ports[0])
        writer.write(b"hello")
        assert await stream.readexactly(5) == b"hello"
        writer.write(b"bye")
        assert await stream.read() == b"bye"
        writer.close()


async def test_a_proxy_cuts_with_a_reset_and_delays_without_losing_a_byte() -> None:
    async with proxied_echo() as proxy:
        stream, writer = await asyncio.open_connection("127.0.0.1", proxy.ports[0])
        writer.write(b"one")
        assert await stream.readexactly(3) == b"one"
        (link,) = proxy.some(1, random.Random(1))
        link.delay(0.2)
        assert proxy.some(1, random.Random(1)) == []
        writer.write(b"two")
        assert await stream.readexactly(3) == b"two"
        link.cut()
        with pytest.raises(ConnectionResetError):
            await stream.readexactly(1)
        writer.close()


async def test_a_client_whose_server_is_gone_is_cut_off() -> None:
    async with Proxy([free_port()]) as proxy:
        stream, writer = await asyncio.open_connection("127.0.0.1", proxy.ports[0])
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await stream.readexactly(1)
        writer.close()
