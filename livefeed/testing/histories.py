"""What every history keeps, as tests: ours pass them, and so must one that a site brings along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC
from functools import cached_property

from ..cursors import NONE_YET
from ..events import Event, new_event
from ..history import EMPTY, PAGE_BYTES, Head, History, Page, Retention, position_of
from ..resuming import lost
from .threads import at_once


class HistoryContract:
    """The tests that every history passes; plain asserts, for pytest and for unittest alike::

        class TestMyHistory(HistoryContract):
            def make_history(self):
                return MyHistory()

            def age(self, topic, seconds):
                ...  # as if the topic's events had been numbered that much earlier

    Each test begins with an empty history. With unittest add ``TransactionTestCase`` (not ``TestCase``: a history may
    need several connections); with pytest and a database the mark ``django_db(transaction=True)``.
    """

    #: More events, and more topics, than the history writes in one step.
    many = 1000

    def make_history(self) -> History:
        """Return the history to be tested, which holds nothing yet."""
        raise NotImplementedError("Return a history that holds nothing.")

    def age(self, topic: str, seconds: float) -> None:
        """Let that many seconds pass since the events of a topic were numbered."""
        raise NotImplementedError("Move the times of the topic's events back.")

    @cached_property
    def history(self) -> History:
        """The history of this test."""
        return self.make_history()

    # -- appending --------------------------------------------------------------------------------------------------

    def test_events_are_numbered_from_one_without_a_hole_and_read_back_as_they_were_given(self) -> None:
        given = [*_some("build", 2), new_event("build", {"text": "Grüße \u2028 🎉 \0"}, "x.y:z-1")]
        (stretch,) = self.history.append(given)
        assert (stretch.topic, len(stretch.epoch)) == ("build", 6)
        assert _seqs(stretch.events) == [1, 2, 3]
        page = self.history.read("build", 0, 10)
        assert page.head == Head(stretch.epoch, 3, 0)
        assert list(page.events) == list(stretch.events)
        for event, original in zip(page.events, given, strict=True):
            assert (event.id, event.type, event.json) == (original.id, original.type, original.json)
            assert event.created_at == original.created_at
            assert event.created_at.tzinfo is UTC

    def test_numbering_goes_on_where_it_ended(self) -> None:
        self.history.append(_some("build", 2))
        (stretch,) = self.history.append(_some("build", 2, first=3))
        assert _seqs(stretch.events) == [3, 4]
        assert _numbers(self.history.read("build", 0, 10).events) == [1, 2, 3, 4]

    def test_each_topic_counts_for_itself_and_has_an_epoch_of_its_own(self) -> None:
        one, two = _some("one", 2), _some("two", 1)
        stretches = self.history.append([one[0], two[0], one[1]])
        assert {stretch.topic: _seqs(stretch.events) for stretch in stretches} == {"one": [1, 2], "two": [1]}
        assert len({stretch.epoch for stretch in stretches}) == 2

    def test_names_that_differ_in_case_only_are_different_topics(self) -> None:
        self.history.append([*_some("News", 1), *_some("news", 2)])
        assert {name: head.seq for name, head in self.history.heads(["News", "news"]).items()} == {"News": 1, "news": 2}
        assert len(self.history.read("News", 0, 10).events) == 1

    def test_a_topic_s_name_may_be_as_long_and_as_odd_as_the_rule_allows(self) -> None:
        names = ["x" * 200, "a.b:c_d-e", "..", "0", "a:", "a::b"]
        self.history.append([event for name in names for event in _some(name, 1)])
        assert set(self.history.heads(names)) == set(names)
        assert all(len(self.history.read(name, 0, 10).events) == 1 for name in names)

    def test_a_topic_keeps_its_epoch(self) -> None:
        epochs = {self.history.append(_some("build", 1))[0].epoch for _ in range(3)}
        assert len(epochs) == 1

    def test_appending_nothing_changes_nothing(self) -> None:
        assert self.history.append([]) == []
        assert self.history.number([]) == []
        assert self.history.number(["build"]) == []

    def test_more_events_than_are_written_in_one_step_are_appended_in_order(self) -> None:
        stretches = self.history.append(_some("build", self.many))
        assert [seq for stretch in stretches for seq in _seqs(stretch.events)] == list(range(1, self.many + 1))
        assert {stretch.topic for stretch in stretches} == {"build"}
        events = self.history.read("build", 0, self.many).events
        assert _numbers(events) == list(range(1, self.many + 1))

    def test_events_appended_by_several_threads_leave_no_hole_and_keep_each_one_s_order(self) -> None:
        history = self.history

        def writer(name: int) -> Callable[[], None]:
            def write() -> None:
                for number in range(5):
                    topics = ("one", "two") if name % 2 else ("two", "one")
                    history.append([new_event(topic, [name, number], "tick") for topic in topics])

            return write

        at_once([writer(name) for name in range(4)])
        for topic in ("one", "two"):
            events = history.read(topic, 0, 100).events
            assert _seqs(events) == list(range(1, 21))
            for name in range(4):
                assert [event.data[1] for event in events if event.data[0] == name] == list(range(5))

    # -- reading ----------------------------------------------------------------------------------------------------

    def test_a_reader_gets_what_follows_its_position_up_to_its_limit(self) -> None:
        self.history.append(_some("build", 10))
        assert _numbers(self.history.read("build", 3, 4).events) == [4, 5, 6, 7]
        assert _numbers(self.history.read("build", 8, 4).events) == [9, 10]
        assert _numbers(self.history.read("build", 10, 4).events) == []
        assert _numbers(self.history.read("build", 99, 4).events) == []
        assert self.history.read("build", 99, 4).head.seq == 10

    def test_a_page_says_whether_a_limit_ended_it(self) -> None:
        self.history.append(_some("build", 40))
        cuts = {count: self.history.read("build", 2, count).cut for count in (1, 15, 16, 17, 32, 37, 38, 39)}
        assert [count for count, cut in cuts.items() if cut] == [1, 15, 16, 17, 32, 37]
        assert not self.history.read("build", 40, 1).cut

    def test_a_page_ends_with_the_event_that_passes_its_bytes(self) -> None:
        # 100 bytes each, with the quotes; "ü" takes two.
        self.history.append([new_event("build", "x" * 96 + "ü", "message") for _ in range(10)])
        page = self.history.read("build", 2, 5, 250)
        assert (_seqs(page.events), page.cut) == ([3, 4, 5], True)
        assert _seqs(self.history.read("build", 2, 5, 200).events) == [3, 4, 5]
        assert _seqs(self.history.read("build", 2, 5, 199).events) == [3, 4]
        assert _seqs(self.history.read("build", 2, 5, 1).events) == [3]
        assert not self.history.read("build", 2, 8).cut
        assert self.history.read("build", 2, 7).cut

    def test_pages_joined_are_the_topic(self) -> None:
        self.history.append([new_event("build", "x" * (number % 7) * 100, "tick") for number in range(60)])
        found: list[Event] = []
        cut = True
        while cut:
            page = self.history.read("build", len(found), 25, 1500)
            found += page.events
            cut = page.cut
        assert _seqs(found) == list(range(1, 61))

    def test_a_topic_without_events_is_empty(self) -> None:
        self.history.append(_some("other", 1))
        assert self.history.read("build", 0, 10) == Page(EMPTY, ())
        assert self.history.heads(["build"]) == {}
        assert self.history.heads([]) == {}

    def test_heads_say_where_topics_end(self) -> None:
        self.history.append([*_some("one", 3), *_some("two", 1)])
        heads = self.history.heads(["one", "two", "none"])
        assert {name: (head.seq, head.floor) for name, head in heads.items()} == {"one": (3, 0), "two": (1, 0)}

    def test_heads_of_very_many_topics_are_answered(self) -> None:
        names = [f"topic:{number}" for number in range(self.many)]
        self.history.append([event for name in names for event in _some(name, 1)])
        assert set(self.history.heads([*names, "none"])) == set(names)

    # -- looking ----------------------------------------------------------------------------------------------------

    def test_topics_that_got_events_since_the_last_look_are_named(self) -> None:
        self.history.append(_some("before", 1))
        _, marker = self.history.moved(None)
        self.history.append(_some("one", 2))
        moved, marker = self.history.moved(marker)
        assert moved["one"].seq == 2
        self.history.append(_some("two", 1))
        self.history.append(_some("one", 1))
        moved, marker = self.history.moved(marker)
        assert (moved["one"].seq, moved["two"].seq) == (3, 1)

    def test_topics_that_got_events_since_a_look_at_an_empty_history_are_named(self) -> None:
        _, marker = self.history.moved(None)
        self.history.append(_some("one", 1))
        moved, _ = self.history.moved(marker)
        assert moved["one"].seq == 1

    def test_a_history_at_rest_has_nothing_left_over(self) -> None:
        self.history.append(_some("build", 3))
        seen: frozenset[int] = frozenset()
        for _ in range(3):
            stretches, seen = self.history.leftovers(seen)
            assert stretches == []

    # -- trimming ---------------------------------------------------------------------------------------------------

    def test_trimming_by_count_keeps_the_newest_and_remembers_how_far_it_went(self) -> None:
        self.history.append([*_some("long", 10), *_some("short", 3)])
        keep_three = _keep(events=3)
        assert self.history.trim(keep_three) == 7
        page = self.history.read("long", 0, 100)
        assert _numbers(page.events) == [8, 9, 10]
        assert (page.head.seq, page.head.floor) == (10, 7)
        assert self.history.heads(["short"])["short"].floor == 0
        assert self.history.trim(keep_three) == 0

    def test_trimming_by_age_removes_what_was_numbered_too_long_ago(self) -> None:
        self.history.append([*_some("build", 2), *_some("young", 1)])
        self.age("build", 3700)
        self.history.append(_some("build", 2, first=3))
        assert self.history.trim(_keep(seconds=3600)) == 2
        page = self.history.read("build", 0, 100)
        assert _numbers(page.events) == [3, 4]
        assert (page.head.seq, page.head.floor) == (4, 2)
        assert _numbers(self.history.read("young", 0, 100).events) == [1]

    def test_age_is_that_of_the_numbering_and_not_of_the_event(self) -> None:
        events = [
            Event("build", "message", "1", created_at=event.created_at.replace(year=2001))
            for event in _some("build", 2)
        ]
        self.history.append(events)
        assert self.history.trim(_keep(seconds=3600)) == 0
        assert [event.created_at.year for event in self.history.read("build", 0, 10).events] == [2001, 2001]

    def test_what_either_limit_does_not_keep_goes(self) -> None:
        self.history.append([*_some("old", 6), *_some("long", 6)])
        self.age("old", 3700)
        self.history.append(_some("old", 1, first=7))
        assert self.history.trim(_keep(seconds=3600, events=4)) == 6 + 2
        assert _numbers(self.history.read("old", 0, 10).events) == [7]
        assert _numbers(self.history.read("long", 0, 10).events) == [3, 4, 5, 6]

    def test_each_topic_is_trimmed_by_what_is_said_of_it(self) -> None:
        self.history.append([*_some("one", 5), *_some("two", 5), *_some("three", 5)])
        limits = {"one": Retention(0, 1), "two": Retention(0, 2), "three": Retention(0, 0)}
        assert self.history.trim(lambda topic: limits[topic]) == 4 + 3
        assert {name: head.floor for name, head in self.history.heads(limits).items()} == {
            "one": 4,
            "two": 3,
            "three": 0,
        }

    def test_only_the_topics_that_are_named_are_trimmed(self) -> None:
        self.history.append([*_some("one", 5), *_some("two", 5)])
        assert self.history.trim(_keep(events=1), ["one", "none"]) == 4
        assert self.history.heads(["two"])["two"].floor == 0
        assert self.history.heads(["none"]) == {}

    def test_a_topic_that_is_trimmed_to_nothing_keeps_its_number_and_its_epoch(self) -> None:
        (before,) = self.history.append(_some("build", 4))
        self.age("build", 3700)
        assert self.history.trim(_keep(seconds=3600)) == 4
        assert self.history.heads(["build"]) == {"build": Head(before.epoch, 4, 4)}
        assert self.history.read("build", 0, 10) == Page(Head(before.epoch, 4, 4), ())
        (after,) = self.history.append(_some("build", 1, first=5))
        assert after.epoch == before.epoch
        assert _seqs(after.events) == [5]

    def test_more_than_one_step_s_worth_is_trimmed(self) -> None:
        self.history.append(_some("build", self.many))
        assert self.history.trim(_keep(events=1)) == self.many - 1
        assert _numbers(self.history.read("build", 0, 10).events) == [self.many]

    def test_a_retention_of_nought_keeps_everything(self) -> None:
        self.history.append(_some("build", 5))
        self.age("build", 10**7)
        assert self.history.trim(_keep()) == 0
        assert len(self.history.read("build", 0, 100).events) == 5

    def test_readers_of_a_topic_that_is_trimmed_meanwhile_find_no_hole_that_the_floor_does_not_tell(self) -> None:
        history = self.history
        history.append(_some("build", 200))

        def trims() -> list[Page]:
            for keep in range(190, 0, -10):
                history.trim(_keep(events=keep), ["build"])
            return []

        def reads() -> list[Page]:
            return [history.read("build", 0, 1000, PAGE_BYTES) for _ in range(20)]

        _, pages = at_once([trims, reads])
        for page in pages:
            first = page.events[0].seq or 0
            assert _seqs(page.events) == list(range(first, 201))
            assert first == 1 or history.heads(["build"])["build"].floor >= first - 1

    # -- epochs -----------------------------------------------------------------------------------------------------

    def test_a_new_epoch_is_drawn_for_the_topics_named(self) -> None:
        self.history.append([*_some("one", 2), *_some("two", 1)])
        before = self.history.heads(["one", "two"])
        _, marker = self.history.moved(None)
        assert self.history.renew_epoch(["one"]) == 1
        after = self.history.heads(["one", "two"])
        assert after["one"].epoch != before["one"].epoch
        assert after["one"].seq == 2
        assert after["two"] == before["two"]
        assert lost(position_of(before["one"]), after["one"])
        moved, _ = self.history.moved(marker)
        assert moved["one"] == after["one"]

    def test_a_new_epoch_ends_cursors_from_before_the_first_event_too(self) -> None:
        self.history.append(_some("one", 2))
        assert self.history.renew_epoch(["one", "none"]) == 2
        heads = self.history.heads(["one", "none"])
        assert lost(NONE_YET, heads["one"])
        assert lost(NONE_YET, heads["none"])
        assert (heads["one"].seq, _seqs(self.history.read("one", 1, 10).events)) == (2, [2])
        assert _seqs(self.history.read("none", 0, 10).events) == []
        (stretch,) = self.history.append(_some("none", 1))
        assert (stretch.epoch, _seqs(stretch.events)) == (heads["none"].epoch, [2])

    def test_without_names_every_topic_gets_a_new_epoch(self) -> None:
        self.history.append([*_some("one", 2), *_some("two", 1)])
        before = self.history.heads(["one", "two"])
        assert self.history.renew_epoch() == 2
        after = self.history.heads(["one", "two"])
        assert all(after[name].epoch != before[name].epoch for name in before)

    def test_numbering_goes_on_in_a_new_epoch(self) -> None:
        self.history.append(_some("build", 3))
        self.history.renew_epoch(["build"])
        epoch = self.history.heads(["build"])["build"].epoch
        (stretch,) = self.history.append(_some("build", 1, first=4))
        assert (stretch.epoch, _seqs(stretch.events)) == (epoch, [4])
        assert _numbers(self.history.read("build", 3, 10).events) == [4]


def _some(topic: str, count: int, *, first: int = 1) -> list[Event]:
    return [new_event(topic, {"n": number}, "tick") for number in range(first, first + count)]


def _numbers(events: Sequence[Event]) -> list[int]:
    return [event.data["n"] for event in events]


def _seqs(events: Sequence[Event]) -> list[int]:
    return [event.seq or 0 for event in events]


def _keep(*, seconds: float = 0, events: int = 0) -> Callable[[str], Retention]:
    return lambda topic: Retention(seconds, events)
