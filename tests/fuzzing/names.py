"""Target ``names``: a signed name that was changed in any way, or is in other hands, is worth nothing; none raises."""

from __future__ import annotations

from functools import lru_cache
from random import Random

from livefeed.exceptions import InvalidTopic
from livefeed.topics import is_signed, plain_name, sign_topic, signature_holds, validate_topic

from . import words
from .expecting import expect
from .words import Case

VIEWERS = ["anonymous", "user:1", "user:11", "session:abc", "user:1:", "user:é"]


def make(random: Random) -> Case:
    edits = [
        [random.randint(0, 80), random.choice([0, 0, 1, 1, 2, 80]), _put(random)]
        for _ in range(random.choice([0, 1, 1, 1, 2, 4]))
    ]
    return {
        "topic": random.choice([words.name(random), words.name(random, 199), words.almost(random), words.text(random)]),
        "viewer": random.choice(VIEWERS),
        "other": random.choice([*VIEWERS, words.name(random)]),
        "edits": edits,
        "swapped": [random.randint(0, 80) for _ in range(random.choice([0, 0, 1, 40]))],
        "forged": random.choice(
            [words.text(random), "a~b~c", "a~~", "~", words.name(random) + "~" + words.name(random)]
        ),
    }


def _put(random: Random) -> str:
    return random.choice(
        ["", "~", "=", words.text(random), random.choice(words.NAMES), random.choice(words.CHARACTERS)]
    )


def check(case: Case) -> None:
    topic, viewer, other = case["topic"], _whole(case["viewer"]), _whole(case["other"])
    expect(not signature_holds(case["forged"], viewer), f"{case['forged']!r} was accepted")
    try:
        signed = signed_name(validate_topic(topic), viewer)
    except InvalidTopic:
        expect(not _allowed(topic), f"the topic {topic!r} was refused")
        return
    expect(_allowed(topic), f"the topic {topic!r} was accepted")
    expect(signature_holds(signed, viewer), f"{signed!r} does not hold for {viewer!r}")
    expect(is_signed(signed) and plain_name(signed) == topic, f"{signed!r} is not about {topic!r}")
    expect(viewer == other or not signature_holds(signed, other), f"{other!r} may use what {viewer!r} was given")
    changed = swapped(edited(signed, case["edits"]), case["swapped"])
    expect(changed == signed or not signature_holds(changed, viewer), f"{signed!r} may be changed to {changed!r}")


@lru_cache(maxsize=10_000)
def signed_name(topic: str, viewer: str) -> str:
    """Sign once in a while: a case that is run again makes the same text."""
    return sign_topic(topic, viewer)


def edited(text: str, edits: list[list[object]]) -> str:
    """Return a text changed at some places: where, how many characters go, what comes instead."""
    for place, gone, put in edits:
        if isinstance(place, int) and isinstance(gone, int) and isinstance(put, str):
            start = place % (len(text) + 1)
            text = text[:start] + put + text[start + max(gone, 0) :]
    return text


def swapped(text: str, places: list[int]) -> str:
    """Return a text with capital and small letters exchanged, from the end backwards, at these places."""
    letters = list(text)
    for place in places:
        if -1 < place < len(letters):
            letters[-1 - place] = letters[-1 - place].swapcase()
    return "".join(letters)


def _allowed(topic: str) -> bool:
    return 1 <= len(topic) <= 200 and set(topic) <= set(words.NAMES) and topic[0] != ":"


def _whole(text: str) -> str:
    """Return a text without lone surrogates: who looks is for the site to say, and it is no hostile text."""
    return text.encode("utf-8", "replace").decode()
