from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livefeed.cursors import NONE_YET, Position, entry, join, new_epoch, parse_cursor, topic_mark
from livefeed.exceptions import InvalidCursor

names = st.from_regex(r"[A-Za-z0-9._-][A-Za-z0-9._:-]{0,199}", fullmatch=True)
epochs = st.builds(new_epoch)
#: One event in each microsecond of three hundred years.
SEQ = 10**16
positions = st.just(NONE_YET) | st.builds(Position, epochs, st.integers(min_value=0, max_value=SEQ))


@given(names, positions)
def test_a_cursor_of_one_topic_comes_back_and_is_under_128_bytes(topic: str, position: Position) -> None:
    text = entry(topic, position)
    assert parse_cursor(text).positions(topic) == [position]
    assert len(text.encode("ascii")) < 128


@given(st.dictionaries(names, positions, min_size=1, max_size=50))
def test_a_cursor_of_several_topics_comes_back(stands: dict[str, Position]) -> None:
    cursor = parse_cursor(join(entry(topic, position) for topic, position in stands.items()))
    for topic, position in stands.items():
        claimed = cursor.positions(topic)
        assert position in claimed
        assert len(claimed) == sum(topic_mark(other) == topic_mark(topic) for other in stands)


def test_a_cursor_of_fifty_long_topics_with_a_hundred_billion_events_each_is_under_1_kib() -> None:
    topics = [f"{'x' * 190}:{number}" for number in range(50)]
    text = join(entry(topic, Position(new_epoch(), 100_000_000_000)) for topic in topics)
    assert len(text.encode("ascii")) < 1024
    assert all(parse_cursor(text).positions(topic)[0].seq == 100_000_000_000 for topic in topics)


@given(st.lists(positions, min_size=1, max_size=50))
def test_a_cursor_is_made_of_characters_that_no_header_and_no_url_bends(stands: list[Position]) -> None:
    text = join(entry(f"topic:{number}", position) for number, position in enumerate(stands))
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", text)


@given(names, positions, names, positions)
def test_cursors_may_be_joined_and_the_entry_of_another_topic_does_no_harm(
    topic: str, position: Position, other: str, elsewhere: Position
) -> None:
    assert position in parse_cursor(join([entry(other, elsewhere), entry(topic, position)])).positions(topic)


def test_a_cursor_says_nothing_about_a_topic_that_it_does_not_name() -> None:
    assert parse_cursor(entry("build:1", Position(new_epoch(), 7))).positions("build:2") == []


def test_a_topic_named_twice_has_both_positions() -> None:
    one, two = Position(new_epoch(), 1), Position(new_epoch(), 2)
    assert parse_cursor(join([entry("build", one), entry("build", two)])).positions("build") == [one, two]


def test_a_cursor_before_the_first_event_is_four_characters() -> None:
    assert entry("build", NONE_YET) == topic_mark("build")
    assert len(entry("build", NONE_YET)) == 4


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "abc", "abcde", "abcd.", ".abcd", "abcd..abcd", "abcdEPOCH_", "abcdEPOCH_Z", "abcdEPOCH_1\n"),
        *("abcd\n", "äbcd", "abcd EPOCH_1", "17", "abcdEPOCH_" + "1" * 13, "\0\0\0\0"),
        *("abcd." * 2000 + "abcd", "x" * 1_000_000),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_text_that_is_no_cursor_is_refused_with_the_value_and_the_cure(text: str) -> None:
    with pytest.raises(InvalidCursor) as caught:
        parse_cursor(text)
    message = str(caught.value)
    assert repr(text[:50])[:-1] in message
    assert "is not a cursor" in message
    assert "Send back the id of the last event, unchanged" in message
    assert len(message) < 400


@given(st.text(max_size=60))
def test_any_text_is_either_a_cursor_or_refused(text: str) -> None:
    try:
        parse_cursor(text)
    except InvalidCursor:
        assert not re.fullmatch(r"[A-Za-z0-9_-]{4}(\.[A-Za-z0-9_-]{4})*", text)


def test_epochs_differ() -> None:
    drawn = {new_epoch() for _ in range(1000)}
    assert len(drawn) == 1000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{6}", epoch) for epoch in drawn)
