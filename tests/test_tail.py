"""Tails and subscriptions: plain Python, no loop, no history. A position only ever moves on by one event."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from livefeed import window
from livefeed.cursors import NONE_YET, Position, parse_cursor
from livefeed.sse import frame
from livefeed.tail import Subscription, Tail
from livefeed.window import Budget, Fit, Frame
from tests.reading import numbers, parse

EPOCH = "epoch1"
OTHER = "epoch2"


def made(seq: int, *, at: float | None = None, size: int = 0) -> Frame:
    data = f'{{"n": {seq}, "pad": "{"x" * size}"}}'
    return Frame(seq, float(seq) if at is None else at, frame("message", data), f"event-{seq}")


def new_tail(topic: str = "t", position: Position = NONE_YET, limit: int = 1_000_000) -> Tail:
    return Tail(topic, position, Budget(limit))


def filled(topic: str, *seqs: int, start: int = 0, budget: Budget | None = None) -> Tail:
    tail = Tail(topic, Position(EPOCH, start), budget or Budget(1_000_000))
    for seq in seqs:
        tail.add(EPOCH, made(seq))
    return tail


def seqs_after(tail: Tail, seq: int) -> list[int]:
    return [found.seq for found in tail.after(seq)]


# -- one topic's tail -------------------------------------------------------------------------------------------------


def test_a_tail_holds_what_comes_one_after_the_other() -> None:
    tail = filled("t", 6, 7, 8, start=5)
    assert (tail.start, tail.head) == (5, 8)
    assert seqs_after(tail, 5) == [6, 7, 8]
    assert seqs_after(tail, 7) == [8]
    assert seqs_after(tail, 8) == []


def test_an_event_fits_only_behind_the_one_before() -> None:
    tail = filled("t", 6, 7, start=5)
    assert tail.fit(EPOCH, 8, "event-8") is Fit.NEXT
    assert tail.fit(EPOCH, 9, "event-9") is Fit.GAP
    assert tail.fit(EPOCH, 7, "event-7") is Fit.KNOWN
    assert tail.fit(EPOCH, 6, "event-6") is Fit.KNOWN


def test_what_lies_before_the_window_is_taken_for_known() -> None:
    assert filled("t", 6, start=5).fit(EPOCH, 3, "event-3") is Fit.KNOWN


def test_another_event_with_a_known_number_is_a_clash() -> None:
    assert filled("t", 6, 7, start=5).fit(EPOCH, 6, "somebody else's") is Fit.CLASH


def test_an_event_of_another_epoch_never_fits() -> None:
    tail = filled("t", 1)
    assert [tail.fit(OTHER, seq, f"event-{seq}") for seq in (1, 2, 3)] == [Fit.GAP] * 3


def test_a_topic_without_events_takes_its_first_one_and_its_epoch() -> None:
    tail = new_tail()
    assert tail.fit(EPOCH, 2, "event-2") is Fit.GAP
    assert tail.fit(EPOCH, 1, "event-1") is Fit.NEXT
    tail.add(EPOCH, made(1))
    assert (tail.epoch, tail.head) == (EPOCH, 1)


def test_a_tail_reaches_further_back_by_what_was_read_from_the_history() -> None:
    tail = filled("t", 6, 7, start=5)
    tail.precede(EPOCH, [made(3), made(4), made(5)])
    assert (tail.start, tail.head) == (2, 7)
    assert seqs_after(tail, 2) == [3, 4, 5, 6, 7]
    assert tail.fit(EPOCH, 4, "event-4") is Fit.KNOWN
    assert tail.fit(EPOCH, 4, "another") is Fit.CLASH


@pytest.mark.parametrize(("epoch", "seqs"), [(EPOCH, [3, 4]), (EPOCH, [5, 6]), (OTHER, [4, 5]), (EPOCH, [])], ids=str)
def test_what_does_not_end_where_a_tail_begins_does_not_precede_it(epoch: str, seqs: list[int]) -> None:
    tail = filled("t", 6, 7, start=5)
    tail.precede(epoch, [made(seq) for seq in seqs])
    assert (tail.start, tail.head) == (5, 7)


def test_what_precedes_takes_half_of_the_budget_at_most() -> None:
    budget = Budget(10_000)
    tail = filled("t", 101, 102, start=100, budget=budget)
    for end in range(100, 0, -2):
        tail.precede(EPOCH, [made(end - 1), made(end)])
    assert 0 < tail.start < 100
    assert budget.used <= budget.limit // 2
    assert budget.used == sum(frame.cost for frame in tail.after(tail.start))


def test_a_restarted_tail_is_empty_elsewhere() -> None:
    budget = Budget(1_000_000)
    tail = filled("t", 1, 2, 3, budget=budget)
    tail.restart(Position(OTHER, 9))
    assert (tail.epoch, tail.start, tail.head, budget.used) == (OTHER, 9, 9, 0)
    assert tail.fit(OTHER, 10, "event-10") is Fit.NEXT


# -- the budget -------------------------------------------------------------------------------------------------------


def test_all_tails_share_one_budget() -> None:
    one = made(1, size=1000)
    budget = Budget(10 * one.cost)
    tails = [Tail(str(number), NONE_YET, budget) for number in range(4)]
    for seq in range(1, 30):
        for tail in tails:
            tail.add(EPOCH, made(seq, size=1000))
            assert budget.used <= budget.limit
    assert sum(tail.head - tail.start for tail in tails) <= 10
    assert [tail.head for tail in tails] == [29] * 4


def test_the_oldest_events_go_first_and_the_rest_stays_without_a_hole() -> None:
    budget = Budget(20 * made(1, size=100).cost)
    tail = Tail("t", NONE_YET, budget)
    for seq in range(1, 100):
        tail.add(EPOCH, made(seq, size=100))
        assert seqs_after(tail, tail.start) == list(range(tail.start + 1, seq + 1))
    assert tail.start > 50


def test_a_budget_counts_nothing_for_tails_that_hold_nothing() -> None:
    budget = Budget(1_000_000)
    tails = [filled(str(number), *range(1, 5), budget=budget) for number in range(10)]
    assert budget.used > 0
    for tail in tails:
        tail.restart(NONE_YET)
    assert budget.used == 0


def test_an_event_larger_than_the_budget_breaks_nothing() -> None:
    tail = new_tail(limit=1000)
    for seq in range(1, 4):
        tail.add(EPOCH, made(seq, size=5000))
    assert tail.head == 3
    assert tail.fit(EPOCH, 4, "event-4") is Fit.NEXT


@example(sizes=[(0, 0), (0, 2000), (2, 0), (1, 0), (2, 0), (0, 2000), (2, 2000), (0, 3000)])
@given(sizes=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3000)), max_size=60))
def test_whatever_is_added_the_budget_is_kept_and_every_tail_is_contiguous(sizes: list[tuple[int, int]]) -> None:
    budget = Budget(5000)
    tails = [Tail(str(number), NONE_YET, budget) for number in range(3)]
    for number, size in sizes:
        tails[number].add(EPOCH, made(tails[number].head + 1, size=size))
    assert budget.used <= budget.limit or sum(tail.head - tail.start for tail in tails) <= 1
    for tail in tails:
        assert seqs_after(tail, tail.start) == list(range(tail.start + 1, tail.head + 1))


def test_what_is_kept_for_readers_at_many_positions_is_bounded_too() -> None:
    """Readers at a thousand positions of a quiet topic: their chunks must not take what the budget denies."""
    budget = Budget(4_000_000)
    tail = filled("t", budget=budget)
    for seq in range(1, 1001):
        tail.add(EPOCH, made(seq, size=500))
    tracemalloc.start()
    try:
        for seq in range(1000):
            tail.chunk(seq)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < budget.limit


# -- chunks -----------------------------------------------------------------------------------------------------------


def test_readers_at_one_position_get_the_same_bytes_object() -> None:
    tail = filled("t", 1, 2, 3)
    readers = [Subscription([tail], [Position(EPOCH, 1)]) for _ in range(3)]
    first, second, third = [reader.take() for reader in readers]
    assert first is second is third
    assert numbers(parse(first)) == [2, 3]


def test_a_chunk_is_not_kept_when_another_event_came() -> None:
    tail = filled("t", 1)
    assert numbers(parse(tail.chunk(0)[0])) == [1]
    tail.add(EPOCH, made(2))
    assert numbers(parse(tail.chunk(0)[0])) == [1, 2]


def test_a_long_stretch_is_cut_into_chunks_that_a_server_takes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "CHUNK_BYTES", 2000)
    tail = filled("t")
    for seq in range(1, 41):
        tail.add(EPOCH, made(seq, size=200))
    reader, found, chunks = Subscription([tail], [Position(EPOCH, 0)]), [], 0
    while chunk := reader.take():
        found += numbers(parse(chunk))
        chunks += 1
        assert len(chunk) < 2500
    assert found == list(range(1, 41))
    assert chunks > 3


def test_the_ids_of_one_topic_are_its_cursors() -> None:
    tail = filled("t", 1, 2)
    reader = Subscription([tail], [Position(EPOCH, 0)])
    events = parse(reader.take())
    assert [parse_cursor(event.id).positions("t") for event in events] == [[Position(EPOCH, 1)], [Position(EPOCH, 2)]]
    assert reader.cursor == events[-1].id
    assert [event.topic for event in events] == ["", ""]


# -- several topics ---------------------------------------------------------------------------------------------------


def several(*streams: tuple[str, Sequence[tuple[int, float]]]) -> list[Tail]:
    tails = []
    for topic, events in streams:
        tails.append(filled(topic))
        for seq, at in events:
            tails[-1].add(EPOCH, made(seq, at=at))
    return tails


def test_several_topics_come_in_the_order_of_publishing_each_block_with_its_topic() -> None:
    tails = several(("a", [(1, 1.0), (2, 4.0)]), ("b", [(1, 2.0), (2, 3.0), (3, 5.0)]))
    reader = Subscription(tails, [Position(EPOCH, 0)] * 2)
    chunk = reader.take()
    assert [(event.topic, event.json["n"]) for event in parse(chunk)] == [
        ("a", 1),
        ("b", 1),
        ("b", 2),
        ("a", 2),
        ("b", 3),
    ]
    assert chunk.count(b"\ntopic: ") == 5
    assert reader.take() == b""


def test_each_id_of_several_topics_holds_all_positions() -> None:
    tails = several(("a", [(1, 1.0)]), ("b", [(1, 2.0)]))
    reader = Subscription(tails, [NONE_YET, Position(EPOCH, 0)])
    cursors = [parse_cursor(event.id) for event in parse(reader.take())]
    assert [[cursor.positions(topic) for topic in "ab"] for cursor in cursors] == [
        [[Position(EPOCH, 1)], [Position(EPOCH, 0)]],
        [[Position(EPOCH, 1)], [Position(EPOCH, 1)]],
    ]


def test_clocks_that_differ_never_change_the_order_within_a_topic() -> None:
    tails = several(("a", [(1, 9.0), (2, 1.0), (3, 5.0)]), ("b", [(1, 4.0), (2, 4.0)]))
    events = parse(Subscription(tails, [Position(EPOCH, 0)] * 2).take())
    for topic, count in [("a", 3), ("b", 2)]:
        assert [event.json["n"] for event in events if event.topic == topic] == list(range(1, count + 1))


def test_a_topic_that_is_behind_does_not_hold_up_the_others() -> None:
    tails = [filled("a", 6, start=5), filled("b", 1)]
    reader = Subscription(tails, [Position(EPOCH, 2), Position(EPOCH, 0)])
    assert [(event.topic, event.json["n"]) for event in parse(reader.take())] == [("b", 1)]
    assert reader.behind() == [0]


def test_a_long_stretch_of_several_topics_is_cut_too_and_goes_on_where_it_was_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tails = several(("a", [(seq, seq) for seq in range(1, 21)]), ("b", [(seq, seq + 0.5) for seq in range(1, 21)]))
    reader, found, chunks = Subscription(tails, [Position(EPOCH, 0)] * 2), [], 0
    while chunk := reader.deliver(
        {index: (EPOCH, tail.after(reader.positions[index].seq)) for index, tail in enumerate(tails)}, 300
    ):
        found += [(event.topic, event.json["n"]) for event in parse(chunk)]
        chunks += 1
    assert chunks > 3
    assert found == [(topic, seq) for seq in range(1, 21) for topic in "ab"]


# -- positions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("position", "takes", "behind"),
    [
        (Position(EPOCH, 5), [6, 7], []),
        (Position(EPOCH, 6), [7], []),
        (Position(EPOCH, 7), [], []),
        (Position(EPOCH, 4), [], [0]),
        (Position(OTHER, 6), [], [0]),
        (Position(OTHER, 7), [], [0]),
        (NONE_YET, [], [0]),
    ],
)
def test_a_reader_takes_what_the_tail_reaches_and_asks_for_the_rest(
    position: Position, takes: list[int], behind: list[int]
) -> None:
    reader = Subscription([filled("t", 6, 7, start=5)], [position])
    assert reader.behind() == behind
    assert numbers(parse(reader.take())) == takes


def test_who_was_there_before_the_first_event_gets_it() -> None:
    tail = new_tail()
    reader = Subscription([tail], [NONE_YET])
    assert (reader.take(), reader.behind()) == (b"", [])
    tail.add(EPOCH, made(1))
    assert reader.behind() == []
    assert numbers(parse(reader.take())) == [1]
    assert reader.positions == [Position(EPOCH, 1)]


def test_a_reader_whose_events_were_forgotten_is_behind() -> None:
    tail = filled("t", 1, 2, 3, 4)
    reader = Subscription([tail], [Position(EPOCH, 0)])
    tail.forget_older_half()
    assert (reader.take(), reader.behind()) == (b"", [0])


def test_a_reader_is_behind_when_its_topic_began_anew() -> None:
    tail = filled("t", 1, 2)
    reader = Subscription([tail], [Position(EPOCH, 2)])
    tail.restart(Position(OTHER, 1))
    assert reader.behind() == [0]
    tail.restart(NONE_YET)
    assert reader.behind() == [0]


@given(
    seed=st.randoms(use_true_random=False),
    topics=st.integers(1, 3),
    limit=st.integers(1, 4000),
)
def test_whatever_happens_positions_move_on_by_one(seed: object, topics: int, limit: int) -> None:
    """Events are added, readers take, memory is short: every reader sees every number once, or is behind."""
    budget = Budget(limit)
    tails = [Tail("abc"[number], NONE_YET, budget) for number in range(topics)]
    reader = Subscription(tails, [NONE_YET] * topics)
    seen: dict[str, list[int]] = {tail.topic: [] for tail in tails}
    for _ in range(60):
        tail = seed.choice(tails)  # type: ignore[attr-defined]
        if seed.random() < 0.7:  # type: ignore[attr-defined]
            tail.add(EPOCH, made(tail.head + 1, size=50))
            continue
        for event in parse(reader.take()):
            seen[event.topic or "a"].append(event.json["n"])
        for index in reader.behind():  # the history brings the next one
            number = reader.positions[index].seq + 1
            for event in parse(reader.deliver({index: (EPOCH, [made(number)])})):
                seen[event.topic or "a"].append(event.json["n"])
    for tail in tails:
        assert seen[tail.topic] == list(range(1, len(seen[tail.topic]) + 1))


# -- waiting ----------------------------------------------------------------------------------------------------------


async def test_a_reader_that_waits_is_woken() -> None:
    reader = Subscription([filled("t")], [Position(EPOCH, 0)])
    waiting = asyncio.ensure_future(reader.wait())
    await asyncio.sleep(0)
    reader.wake(b"fleeting")
    reader.wake(b" twice")
    await asyncio.wait_for(waiting, 5)
    assert reader.fleeting == b"fleeting twice"


async def test_who_does_not_wait_misses_what_is_fleeting() -> None:
    reader = Subscription([filled("t")], [Position(EPOCH, 0)])
    reader.wake(b"missed")
    assert reader.fleeting == b""


async def test_a_reader_that_gave_up_waiting_can_wait_again() -> None:
    reader = Subscription([filled("t")], [Position(EPOCH, 0)])
    waiting = asyncio.ensure_future(reader.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    reader.wake(b"nobody is there")
    again = asyncio.ensure_future(reader.wait())
    await asyncio.sleep(0)
    assert not again.done()
    reader.wake()
    await asyncio.wait_for(again, 5)


def test_chunks_that_are_kept_count_as_memory_like_frames() -> None:
    budget = Budget(100_000)
    tails = [Tail(f"t{number}", Position("epoch1", 0), budget) for number in range(5)]
    for tail in tails:
        for seq in range(1, 11):
            tail.add("epoch1", Frame(seq, 0.0, b"x" * 1000, f"id{seq}"))
    for tail in tails:
        for seq in range(tail.start, tail.head):
            Subscription([tail], [Position("epoch1", seq)]).take()
            assert budget.used <= budget.limit
            held = sum(frame.cost for each in tails for frame in each.after(each.start))
            assert budget.used == held + sum(len(chunk) for each in tails for chunk, _ in each._chunks.values())
