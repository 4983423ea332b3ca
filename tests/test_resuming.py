"""Where a reader who comes back goes on, or why that can't be known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livefeed.cursors import NONE_YET, Position
from livefeed.history import EMPTY, Head
from livefeed.resuming import AHEAD, BEHIND, EPOCH, TRIMMED, best, lost, missed, too_far

HEAD = Head("epoch1", 20, 10)


@pytest.mark.parametrize(
    ("position", "head", "reason"),
    [
        (Position("epoch1", 20), HEAD, ""),
        (Position("epoch1", 10), HEAD, ""),
        (Position("epoch1", 9), HEAD, TRIMMED),
        (Position("epoch1", 0), HEAD, TRIMMED),
        (Position("epoch1", 21), HEAD, AHEAD),
        (Position("epoch2", 15), HEAD, EPOCH),
        (Position("epoch2", 5), HEAD, EPOCH),
        (Position("epoch2", 25), HEAD, EPOCH),
        (Position("epoch1", 3), EMPTY, EPOCH),
        (NONE_YET, EMPTY, ""),
        (NONE_YET, Head("epoch1", 20, 0), ""),
        (NONE_YET, Head("epoch1", 20, 1), TRIMMED),
        (NONE_YET, HEAD, TRIMMED),
    ],
)
def test_each_way_to_lose_continuity_has_its_name(position: Position, head: Head, reason: str) -> None:
    assert lost(position, head) == reason


@pytest.mark.parametrize(
    ("position", "first", "reason"),
    [
        (Position("epoch1", 15), 16, ""),
        (Position("epoch1", 15), 17, TRIMMED),
        (Position("epoch1", 15), None, TRIMMED),
        (Position("epoch1", 20), None, ""),
        (Position("epoch1", 20), 21, ""),  # numbered since the head was read
        (Position("epoch1", 9), 11, TRIMMED),
        (Position("epoch2", 15), 16, EPOCH),
        (NONE_YET, 11, TRIMMED),
    ],
)
def test_events_that_do_not_begin_right_behind_a_position_are_a_hole(
    position: Position, first: int | None, reason: str
) -> None:
    assert missed(position, HEAD, first) == reason


@pytest.mark.parametrize(
    ("seq", "most", "reason"), [(10, 10, ""), (9, 10, BEHIND), (20, 1, ""), (0, 0, ""), (10, 9, BEHIND)]
)
def test_a_stream_replays_so_many_events_and_no_more(seq: int, most: int, reason: str) -> None:
    assert too_far(Position("epoch1", seq), HEAD, most) == reason


def test_of_several_claims_the_oldest_that_can_be_followed_is_taken() -> None:
    claims = [Position("epoch1", 3), Position("epoch1", 15), Position("epoch1", 12), Position("epoch2", 11)]
    assert best(claims, HEAD) == Position("epoch1", 12)


def test_where_no_claim_can_be_followed_one_of_them_gives_the_reason() -> None:
    assert lost(best([Position("epoch1", 3), Position("epoch2", 15)], HEAD), HEAD)


POSITIONS = st.builds(Position, st.sampled_from(["epoch1", "epoch2"]), st.integers(0, 30)) | st.just(NONE_YET)


@given(claims=st.lists(POSITIONS, min_size=1))
def test_the_best_claim_never_skips_an_event_that_another_claim_has_not_seen(claims: list[Position]) -> None:
    taken = best(claims, HEAD)
    usable = [claim for claim in claims if not lost(claim, HEAD)]
    assert taken in claims
    assert all(taken.seq <= claim.seq for claim in usable)
    assert not usable or not lost(taken, HEAD)
