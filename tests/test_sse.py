"""Frames, against the parser that livefeed.testing ships; and that parser against the standard's rules.

WHATWG HTML, section 9.2.5 "Parsing an event stream" and 9.2.6 "Interpreting an event stream".
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livefeed import sse
from livefeed.events import encode
from livefeed.testing import EventStreamParser, ServerSentEvent

TYPES = st.from_regex(r"[A-Za-z0-9_.:-]{1,64}", fullmatch=True)
CURSORS = st.from_regex(r"[A-Za-z0-9_.-]{1,40}", fullmatch=True)
TOPICS = st.from_regex(r"[A-Za-z0-9._-][A-Za-z0-9._:-]{0,40}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
BOM = b"\xef\xbb\xbf"


def _encodable(value: object) -> bool:
    try:
        encode(value)
    except ValueError:  # a lone surrogate
        return False
    return True


# -- what we write ----------------------------------------------------------------------------------------------------


def test_a_frame_is_its_type_its_data_and_an_empty_line() -> None:
    assert sse.frame("created", '{"pk":5}') == b'event: created\ndata: {"pk":5}\n\n'


def test_a_message_needs_no_event_line() -> None:
    assert sse.frame("message", "1") == b"data: 1\n\n"


def test_the_id_stands_in_front_and_the_topic_behind_it() -> None:
    assert sse.with_id("Zk3f", b"data: 1\n\n") == b"id: Zk3f\ndata: 1\n\n"
    assert sse.with_id("Zk3f", b"data: 1\n\n", "news") == b"id: Zk3f\ntopic: news\ndata: 1\n\n"


def test_no_block_is_without_data() -> None:
    assert EventStreamParser().push(sse.frame("created", "")) == [ServerSentEvent("created", "", "")]


def test_a_keep_alive_is_a_comment_and_nothing_else() -> None:
    parser = EventStreamParser("before")
    assert parser.push(sse.KEEP_ALIVE) == []
    assert (parser.comments, parser.last_event_id) == (1, "before")


def test_the_reconnection_time_is_read_from_its_line() -> None:
    parser = EventStreamParser()
    parser.push(sse.retry(2345))
    assert parser.retry == 2345


@given(type=TYPES, value=JSON.filter(_encodable), cursor=CURSORS, topic=TOPICS | st.just(""))
def test_any_event_comes_out_as_it_went_in(type: str, value: object, cursor: str, topic: str) -> None:
    block = sse.with_id(cursor, sse.frame(type, encode(value)), topic)
    (event,) = EventStreamParser().push(block)
    assert (event.type, event.id, event.topic) == (type, cursor, topic)
    assert encode(event.json) == encode(value)


@given(lines=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n")), min_size=1))
@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_lines_of_text_come_out_as_lines(lines: list[str], end: str) -> None:
    (event,) = EventStreamParser().push(sse.frame("message", end.join(lines)))
    assert event.data == "\n".join(lines)


@given(text=st.text(st.sampled_from("a\u2028\u2029\x85\x0b\x0c\x1c\x00")))
def test_only_cr_and_lf_end_a_line(text: str) -> None:
    (event,) = EventStreamParser().push(sse.frame("message", text))
    assert event.data == text


@given(text=st.text(st.characters(exclude_categories=["Cs"])), type=TYPES)
def test_no_data_can_make_a_second_block_or_field(text: str, type: str) -> None:
    block = sse.with_id("c", sse.frame(type, text))
    (event,) = EventStreamParser().push(block)
    assert (event.type, event.id) == (type, "c")
    assert b"\r" not in block
    assert block.count(b"\n\n") == 1


@given(
    events=st.lists(st.tuples(TYPES, st.text(st.characters(exclude_categories=["Cs"])), CURSORS), max_size=5),
    cuts=st.lists(st.integers(0, 400), max_size=20),
)
def test_a_stream_may_be_cut_anywhere(events: list[tuple[str, str, str]], cuts: list[int]) -> None:
    whole = b"".join(sse.with_id(cursor, sse.frame(type, data)) for type, data, cursor in events)
    parser, found, start = EventStreamParser(), [], 0
    for cut in [*sorted(cuts), len(whole)]:
        found += parser.push(whole[start:cut])
        start = max(start, cut)
    assert found == EventStreamParser().push(whole)


# -- what the parser understands --------------------------------------------------------------------------------------


class Case(NamedTuple):
    stream: bytes
    events: list[tuple[str, str, str]]
    last_event_id: str = ""
    retry: int | None = None
    comments: int = 0


CASES = {
    "one event": Case(b"data: a\n\n", [("message", "a", "")]),
    "CR LF ends a line": Case(b"data: a\r\ndata: b\r\n\r\n", [("message", "a\nb", "")]),
    "CR ends a line": Case(b"data: a\rdata: b\r\rdata: c\r\r", [("message", "a\nb", ""), ("message", "c", "")]),
    "line ends may be mixed": Case(b"data: a\r\ndata: b\ndata: c\r\n\n", [("message", "a\nb\nc", "")]),
    "LF CR are two ends": Case(b"data: a\n\rdata: b\n\r", [("message", "a", ""), ("message", "b", "")]),
    "other separators end nothing": Case(
        "data: a\u2028b\x85c\x0bd\x0ce\n\n".encode(), [("message", "a\u2028b\x85c\x0bd\x0ce", "")]
    ),
    "one BOM at the start is dropped": Case(BOM + b"data: a\n\n", [("message", "a", "")]),
    "a second BOM is part of a field's name": Case(BOM + BOM + b"data: a\n\n", []),
    "a BOM later is part of a field's name": Case(
        b"data: a\n\n" + BOM + b"data: b\n\ndata: c\n\n", [("message", "a", ""), ("message", "c", "")]
    ),
    "bytes that are no UTF-8 become U+FFFD": Case(b"data: a\xffb\n\n", [("message", "a\ufffdb", "")]),
    "a comment is nothing": Case(b": hello\n:\ndata: a\n\n", [("message", "a", "")], comments=2),
    "one space after the colon is dropped": Case(b"data:  a\ndata:b\ndata:\tc\n\n", [("message", " a\nb\n\tc", "")]),
    "a field without a colon has an empty value": Case(b"data\ndata\n\n", [("message", "\n", "")]),
    "empty data is data": Case(b"data:\n\n", [("message", "", "")]),
    "a block without data is no event": Case(b"event: a\n\ndata: b\n\n", [("message", "b", "")]),
    "the last event line wins": Case(b"event: a\nevent: b\ndata: c\n\n", [("b", "c", "")]),
    "an empty event line means message": Case(b"event: a\nevent:\ndata: c\n\n", [("message", "c", "")]),
    "names of fields are exact": Case(b"Data: a\n data: b\ndata : c\ndatum: d\n\n", []),
    "an id stays": Case(b"id: 1\ndata: a\n\ndata: b\n\n", [("message", "a", "1"), ("message", "b", "1")], "1"),
    "an empty id takes the id away": Case(
        b"id: 1\ndata: a\n\nid\ndata: b\n\n", [("message", "a", "1"), ("message", "b", "")]
    ),
    "an id with NUL is ignored": Case(
        b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n", [("message", "a", "1"), ("message", "b", "1")], "1"
    ),
    "the id of a block without data counts": Case(b"id: 7\n\n", [], "7"),
    "what is not ended is discarded, and its id with it": Case(
        b"id: 1\ndata: a\n\nid: 2\ndata: b\n", [("message", "a", "1")], "1"
    ),
    "a retry counts at once": Case(b"retry: 50\n", [], retry=50),
    "a retry that is no number is ignored": Case(
        b"retry: 50\nretry: 6a\nretry: -1\nretry:\nretry: 1.5\n", [], retry=50
    ),
    "only ASCII digits are digits": Case("retry: 50\nretry: \u0663\nretry: \u00b2\n".encode(), [], retry=50),
}


def portions_of(stream: bytes) -> list[list[bytes]]:
    """Return the stream whole, byte by byte, and cut once at every byte."""
    whole, single = [stream], [stream[index : index + 1] for index in range(len(stream))]
    return [whole, single, *([stream[:cut], stream[cut:]] for cut in range(1, len(stream)))]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_parser_keeps_to_the_standard_wherever_the_stream_is_cut(case: Case) -> None:
    for portions in portions_of(case.stream):
        parser = EventStreamParser()
        found = [event for portion in portions for event in parser.push(portion)]
        assert [(event.type, event.data, event.id) for event in found] == case.events, portions
        assert (parser.last_event_id, parser.retry) == (case.last_event_id, case.retry), portions
        assert parser.comments == case.comments, portions


def test_a_cr_at_the_end_of_a_portion_ends_the_line_at_once() -> None:
    parser = EventStreamParser()
    assert [event.data for event in parser.push(b"data: a\r\r")] == ["a"]
    assert [event.data for event in parser.push(b"\ndata: b\r\n\r")] == ["b"]
    assert parser.push(b"\n") == []
    assert [event.data for event in parser.push(b"data: c\n\n")] == ["c"]


def test_a_reconnecting_parser_knows_the_id_it_came_with() -> None:
    (event,) = EventStreamParser("41").push(b"data: a\n\n")
    assert event.id == "41"


def test_a_reconnection_time_of_thousands_of_digits_breaks_nothing() -> None:
    parser = EventStreamParser()
    (event,) = parser.push(b"retry: " + b"9" * 5000 + b"\ndata: a\n\n")
    assert event.data == "a"


def test_the_topic_of_a_block_is_its_own() -> None:
    events = EventStreamParser().push(b"topic: a\ndata: 1\n\ndata: 2\n\n")
    assert [event.topic for event in events] == ["a", ""]
