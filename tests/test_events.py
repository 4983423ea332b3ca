from __future__ import annotations

import datetime
import json
import uuid
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from livefeed.conf import settings as livefeed_settings
from livefeed.events import MAX_DEPTH, Event, Stretch, encode, new_event, pack, unpack, validate_type
from livefeed.exceptions import InvalidData, InvalidTopic, InvalidType, LivefeedError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=4),
    max_leaves=12,
)
# What UTF-8 can't write is refused; that is tested by itself.
writable = json_values.filter(lambda value: not any(0xD800 <= ord(char) < 0xE000 for char in repr_of(value)))


def repr_of(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def test_an_event_has_what_the_caller_gave_and_an_identity_and_moment_of_its_own() -> None:
    before = datetime.datetime.now(datetime.UTC)
    one, two = (new_event("build:42", {"percent": 70}, "progress") for _ in range(2))
    assert (one.topic, one.type, one.data, one.seq) == ("build:42", "progress", {"percent": 70}, None)
    assert one.id != two.id
    assert uuid.UUID(hex=one.id)
    assert before <= one.created_at <= datetime.datetime.now(datetime.UTC)


def test_the_json_page_shows_every_part_of_an_event() -> None:
    moment = datetime.datetime(2025, 1, 2, 3, 4, 5, 6, datetime.UTC)
    event = Event("build", "message", '{"a":1}', "an-id", moment, 3)
    assert event.as_json() == {
        "topic": "build",
        "seq": 3,
        "type": "message",
        "data": {"a": 1},
        "created_at": "2025-01-02T03:04:05.000006+00:00",
        "id": "an-id",
    }


@pytest.mark.parametrize("type", ["message", "progress", "a", "a.b:c-d_9", "x" * 64, "livefeed", "opened", "Open"])
def test_a_type_of_letters_digits_and_four_marks_is_taken(type: str) -> None:
    assert validate_type(type) == type


@pytest.mark.parametrize(
    "type",
    ["", "x" * 65, "two words", "line\nfeed", "tail\n", "carriage\r", "nul\0", "größe", "a/b", None, 7, b"ab"],
)
def test_a_malformed_type_is_refused_with_the_value_the_rule_and_the_cure(type: object) -> None:
    with pytest.raises(InvalidType) as caught:
        validate_type(type)
    message = str(caught.value)
    assert repr(type) in message
    assert "1 to 64" in message
    assert 'e.g. "progress"' in message


@pytest.mark.parametrize("type", ["open", "error", "close", "livefeed-open", "livefeed-reset", "livefeed-x"])
def test_a_reserved_type_is_refused_with_the_value_the_rule_and_the_cure(type: str) -> None:
    with pytest.raises(InvalidType) as caught:
        validate_type(type)
    message = str(caught.value)
    assert repr(type) in message
    assert "reserved" in message
    assert "Choose another" in message


def test_refusals_are_value_errors_and_errors_of_ours() -> None:
    for error in (InvalidTopic, InvalidType, InvalidData):
        assert issubclass(error, ValueError)
        assert issubclass(error, LivefeedError)


@given(writable)
def test_plain_json_comes_back_as_it_went_in(value: Any) -> None:
    assert json.loads(encode(value)) == value


def test_data_is_compact_json_in_utf8_on_one_line() -> None:
    assert encode({"a": [1, 2], "text": "Grüße\nan \u2028 alle 🎉"}) == '{"a":[1,2],"text":"Grüße\\nan \u2028 alle 🎉"}'


def test_what_django_encodes_is_taken() -> None:
    key = uuid.uuid4()
    data = {
        "decimal": Decimal("1.50"),
        "date": datetime.date(2025, 1, 2),
        "datetime": datetime.datetime(2025, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        "duration": datetime.timedelta(minutes=1),
        "uuid": key,
        "lazy": gettext_lazy("Hello"),
        "tuple": (1, 2),
        7: None,
    }
    assert json.loads(encode(data)) == {
        "decimal": "1.50",
        "date": "2025-01-02",
        "datetime": "2025-01-02T03:04:05Z",
        "duration": "P0DT00H01M00S",
        "uuid": str(key),
        "lazy": "Hello",
        "tuple": [1, 2],
        "7": None,
    }


def circular() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


def deep() -> list[Any]:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (object(), "object"),
        ({"a": {1, 2}}, "set"),
        (b"bytes", "bytes"),
        (float("nan"), "nan"),
        ({"a": float("inf")}, "inf"),
        ({(1, 2): 3}, "tuple"),
        ("\ud800", "\\ud800"),
        (circular(), "Circular"),
    ],
    ids=["object", "set", "bytes", "nan", "infinity", "tuple as key", "lone surrogate", "circular"],
)
def test_what_is_no_json_is_refused_with_the_value_the_rule_and_the_cure(data: Any, value: str) -> None:
    with pytest.raises(InvalidData) as caught:
        encode(data)
    message = str(caught.value)
    assert value in message
    assert "can't be written as JSON" in message
    assert "Hand in what Django's JSON encoder knows" in message


def nested(levels: int) -> Any:
    data: Any = "[{" * 1000
    for level in range(levels):
        data = [data] if level % 2 else {'"[': data, "\\": '\\"'}
    return data


def test_what_is_accepted_can_be_decoded_from_deep_in_a_call_stack_too() -> None:
    """Found by fuzzing: 900 levels could be published, and the JSON page of the topic failed for everybody."""

    def decode_under(frames: int, text: str) -> Any:
        return decode_under(frames - 1, text) if frames else json.loads(text)

    assert decode_under(400, encode(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    with pytest.raises(InvalidData, match="is nested 101 levels deep, and 100 are allowed"):
        encode(nested(MAX_DEPTH + 1))


def test_many_lists_beside_each_other_are_not_deep() -> None:
    assert encode([{"a": ["[", "]]]"]}] * 1000)


def test_data_nested_too_deep_is_refused() -> None:
    with pytest.raises(InvalidData, match="can't be written as JSON"):
        encode(deep())


def test_data_of_just_the_allowed_bytes_is_taken_and_one_more_is_refused_with_the_cure(settings: Any) -> None:
    settings.LIVEFEED_MAX_EVENT_BYTES = 1024
    assert len(encode("x" * 1022)) == 1024
    with pytest.raises(InvalidData) as caught:
        encode("x" * 1023)
    message = str(caught.value)
    assert "1025 bytes" in message
    assert "LIVEFEED_MAX_EVENT_BYTES (1024)" in message
    assert "raise the setting" in message


def test_the_size_is_counted_in_bytes_and_not_in_characters(settings: Any) -> None:
    settings.LIVEFEED_MAX_EVENT_BYTES = 1024
    with pytest.raises(InvalidData, match="1202 bytes"):
        encode("🎉" * 300)


def test_by_default_an_event_may_have_256_kib() -> None:
    assert livefeed_settings.MAX_EVENT_BYTES == 256 * 1024
    assert len(encode("x" * (256 * 1024 - 2))) == 256 * 1024
    with pytest.raises(InvalidData):
        encode("x" * (256 * 1024 - 1))


topics = st.from_regex(r"[A-Za-z0-9._-][A-Za-z0-9._:-]{0,40}", fullmatch=True)
events = st.builds(
    Event,
    topic=st.just("build:42"),
    type=st.from_regex(r"[a-z]{1,10}", fullmatch=True),
    json=writable.map(encode),
    created_at=st.datetimes(timezones=st.just(datetime.UTC)),
    seq=st.none() | st.integers(min_value=1, max_value=2**63),
)


@given(st.builds(Stretch, st.just("build:42"), st.just("Ep-_01"), st.lists(events, max_size=5).map(tuple)))
def test_a_stretch_survives_the_way_to_another_process(stretch: Stretch) -> None:
    assert unpack(pack(stretch)) == stretch


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'["a"]', b"17", b'["a","b",[[1]]]', b'["a","b",[[1,2,3,4,5]]]'])
def test_what_is_no_message_of_ours_is_a_value_or_type_error(body: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        unpack(body)


def test_an_event_that_is_replaced_is_measured_anew() -> None:
    event = new_event("build", "short", "tick")
    assert replace(event, json='"a longer text: é"').size == len('"a longer text: é"'.encode())
