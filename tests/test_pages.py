"""Pages of history: one after the other they are the whole history, or say where they are not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from livefeed import pages
from livefeed.cursors import NONE_YET, Cursor, Position, entry, join, parse_cursor
from livefeed.events import Event
from livefeed.history import History, Page, cursor
from livefeed.pages import history_page
from livefeed.registry import registry
from tests.reading import append

pytest_plugins = ["tests.reading_fixtures"]

START = datetime(2030, 1, 1, tzinfo=UTC)


def read_all(topics: list[str], since: str) -> tuple[list[tuple[str, int]], list[dict[str, str]], list[int]]:
    """Return the events, the resets and the sizes of all pages that follow a cursor."""
    found: list[tuple[str, int]] = []
    resets: list[dict[str, str]] = []
    sizes = []
    more = True
    while more:
        page = history_page(topics, parse_cursor(since), None).content
        found += [(event["topic"], event["seq"]) for event in page["events"]]
        resets += page["resets"]
        sizes.append(len(page["events"]))
        since, more = page["cursor"], page["more"]
        assert len(sizes) < 1000, "it never ends"
    return found, resets, sizes


def test_without_a_cursor_there_is_only_one_to_begin_with(memory: History) -> None:
    append("a", 1, 2)
    page = history_page(["a", "b"], None, None).content
    assert (page["events"], page["more"], page["resets"]) == ([], False, [])
    assert page["cursor"] == cursor("a", "b")


def test_it_names_the_topics_whose_events_a_stream_sends_without_their_type(memory: History) -> None:
    assert history_page(["plain", "a", "testapp.article"], None, None).content["unnamed"] == ["plain"]


def test_a_page_that_just_fits_is_the_last(memory: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "LIMIT", 3)
    since = cursor("a")
    append("a", 1, 2, 3)
    found, _, sizes = read_all(["a"], since)
    assert found == [("a", 1), ("a", 2), ("a", 3)]
    assert sizes in ([3], [3, 0])


def test_a_topic_that_the_cursor_says_nothing_of_begins_at_its_end(memory: History) -> None:
    since = cursor("a")
    append("a", 1)
    append("b", 1)
    page = history_page(["a", "b"], parse_cursor(since), None).content
    assert [event["topic"] for event in page["events"]] == ["a"]
    assert page["cursor"] == cursor("a", "b")


def test_none_yet_is_followed_from_the_first_event(memory: History) -> None:
    append("a", 1, 2)
    found, resets, _ = read_all(["a"], entry("a", NONE_YET))
    assert (found, resets) == ([("a", 1), ("a", 2)], [])


@pytest.mark.parametrize("reason", ["trimmed", "epoch", "ahead"])
def test_what_can_t_be_followed_is_told_and_begins_at_the_end(memory: Any, settings: Any, reason: str) -> None:
    append("a", 1, 2, 3)
    head = memory.heads(["a"])["a"]
    since = entry("a", Position(head.epoch, 99 if reason == "ahead" else 1))
    if reason == "epoch":
        memory.renew_epoch()
    if reason == "trimmed":
        settings.LIVEFEED_RETENTION_EVENTS = 1
        memory.trim(registry.retention)
    append("b", 1)
    page = history_page(["a", "b"], parse_cursor(join([since, entry("b", NONE_YET)])), None).content
    assert page["resets"] == [{"topic": "a", "reason": reason}]
    assert [event["topic"] for event in page["events"]] == ["b"]
    assert page["cursor"] == cursor("a", "b")


def interfere(memory: Any, monkeypatch: pytest.MonkeyPatch, what: Callable[[], Any]) -> None:
    """Let something happen to the history right before its events are read."""
    read = memory.read

    def late_read(topic: str, after: int, limit: int, max_bytes: int) -> Page:
        what()
        page: Page = read(topic, after, limit, max_bytes)
        return page

    monkeypatch.setattr(memory, "read", late_read)


def test_what_is_trimmed_while_a_page_is_made_is_told(
    memory: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    since = cursor("a")
    append("a", *range(10))
    settings.LIVEFEED_RETENTION_EVENTS = 3
    interfere(memory, monkeypatch, lambda: memory.trim(registry.retention))
    page = history_page(["a"], parse_cursor(since), None).content
    assert page["resets"] == [{"topic": "a", "reason": "trimmed"}]
    assert page["events"] == []


def test_an_epoch_that_is_renewed_while_a_page_is_made_is_told(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    append("a", 0)
    since = cursor("a")
    append("a", *range(10))
    interfere(memory, monkeypatch, memory.renew_epoch)
    page = history_page(["a"], parse_cursor(since), None).content
    assert page["resets"] == [{"topic": "a", "reason": "epoch"}]
    assert page["events"] == []


def test_a_hole_is_told(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    append("a", 0)
    since = cursor("a")
    append("a", *range(10))
    read = memory.read
    monkeypatch.setattr(
        memory, "read", lambda *args: read(*args)._replace(events=[e for e in read(*args).events if e.seq > 4])
    )
    page = history_page(["a"], parse_cursor(since), None).content
    assert page["resets"] == [{"topic": "a", "reason": "trimmed"}]


def test_a_page_ends_before_a_hole_and_says_that_there_is_more(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    append("a", 0)
    since = cursor("a")
    append("a", *range(10))
    read = memory.read
    monkeypatch.setattr(
        memory, "read", lambda *args: read(*args)._replace(events=[e for e in read(*args).events if e.seq != 5])
    )
    page = history_page(["a"], parse_cursor(since), None).content
    assert ([event["seq"] for event in page["events"]], page["more"], page["resets"]) == ([2, 3, 4], True, [])
    page = history_page(["a"], parse_cursor(page["cursor"]), None).content
    assert page["resets"] == [{"topic": "a", "reason": "trimmed"}]


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    writes=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=40),
    limit=st.integers(1, 7),
    begin=st.integers(0, 10),
)
def test_pages_of_several_topics_have_no_hole_and_no_double(
    memory: Any, monkeypatch: pytest.MonkeyPatch, writes: list[tuple[str, int]], limit: int, begin: int
) -> None:
    """Whatever the clocks of the publishers say, and however the pages are cut."""
    monkeypatch.setattr(pages, "LIMIT", limit)
    memory._topics.clear()
    topics = ["a", "b", "c"]
    since = cursor(*topics)
    for number, (topic, second) in enumerate(writes):
        if number == begin:
            since = cursor(*topics)
        memory.append([Event(topic, "tick", "{}", created_at=START + timedelta(seconds=second))])
    found, resets, _ = read_all(topics, since)
    claims: Cursor = parse_cursor(since)
    assert resets == []
    for topic in topics:
        head = memory.heads([topic]).get(topic)
        (start,) = claims.positions(topic)
        assert [seq for name, seq in found if name == topic] == list(
            range(start.seq + 1, (head.seq if head else 0) + 1)
        )


def test_events_of_several_topics_come_in_the_order_of_publishing(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "LIMIT", 3)
    since = cursor("a", "b")
    for second in range(12):
        topic = "ab"[second % 2]
        memory.append([Event(topic, "tick", "{}", created_at=START + timedelta(seconds=second))])
    found, _, _ = read_all(["a", "b"], since)
    assert found == [("ab"[n % 2], n // 2 + 1) for n in range(12)]
