"""Target ``tokens``: a token that was changed in any way is refused by name, and what is made can be read."""

from __future__ import annotations

from functools import lru_cache
from random import Random
from typing import Any

from livefeed.conf import settings
from livefeed.exceptions import AuthenticationFailed, InvalidToken, InvalidTopic
from livefeed.tokens import MAX_LENGTH, PREFIX, create_token, read_token

from . import site, words
from .expecting import expect
from .names import edited, swapped
from .words import Case

#: No site makes tokens for longer, and no case waits for one to end.
LONG = 3600


def make(random: Random) -> Case:
    topics = [random.choice([words.name(random), words.name(random), words.almost(random), words.text(random)])]
    edits = [
        [random.randint(0, 200), random.choice([0, 0, 1, 1, 2, 80]), random.choice(["", ".", "=", words.text(random)])]
        for _ in range(random.choice([0, 1, 1, 2, 4]))
    ]
    return {
        "who": random.choice(["", "ann", "bob"]),
        "topics": random.choice([None, [], ["plain"], ["plain", "secret:1"], topics, topics * 60]),
        "max_age": random.choice(
            [LONG, LONG, LONG, 0, -1, 10**300, 1e-300, float("nan"), float("inf"), words.value(random)]
        ),
        "edits": edits,
        "swapped": [random.randint(0, 80) for _ in range(random.choice([0, 0, 1, 40]))],
        "forged": random.choice([PREFIX, "", PREFIX.upper()]) + random.choice([words.text(random), "a.b", ".a:b", "."]),
    }


def check(case: Case) -> None:
    forged = case["forged"]
    expect(_read(forged) is (None if not forged.startswith(PREFIX) else False), f"{forged!r} was accepted")
    _made_or_refused(case)
    names = case["topics"] if case["topics"] in (["plain"], ["plain", "secret:1"]) else None
    token = valid(case["who"] if names is None else "", tuple(names or ()))
    if token is None:
        return
    found = _read(token)
    expect(found and found.topics == (frozenset(names) if names else None), f"{token!r} says {found}")
    changed = swapped(edited(token, case["edits"]), case["swapped"])
    wanted = False if changed.startswith(PREFIX) else None
    expect(changed == token or _read(changed) is wanted, f"{token!r} may be changed to {changed!r}")


@lru_cache(maxsize=100)
def valid(who: str, topics: tuple[str, ...]) -> str | None:
    """Return a token that holds; None for nobody's without topics, which can't be made."""
    user = site.current().who.get(who, site.current().who[""]).user
    return create_token(user, topics or None, max_age=LONG) if user or topics else None


def _read(text: str) -> Any:
    """Return what a token says, None for text that is none, False for one that was refused."""
    try:
        return read_token(text)
    except AuthenticationFailed as failure:
        expect(len(text) < 12 or text not in str(failure), f"a token stands in the error {failure}")
        return False


def _made_or_refused(case: Case) -> None:
    topics, max_age = case["topics"], case["max_age"]
    try:
        token = create_token(None, topics, max_age=max_age)
    except InvalidToken as error:
        usable = isinstance(max_age, int | float) and not isinstance(max_age, bool) and 0 < max_age <= 86_400
        few = bool(topics) and len(set(topics)) <= settings.MAX_TOPICS
        expect(not (usable and few) or "characters" in str(error), f"refused: {topics} for {max_age}: {error}")
    except InvalidTopic:
        expect(not all(_is_name(topic) for topic in topics), f"the topics {topics} were refused")
    else:
        expect(all(_is_name(topic) for topic in topics), f"a token for {topics}")
        expect(len(token) <= MAX_LENGTH and token.isascii() and token.isprintable(), f"no header takes {token!r}")
        found = _read(token)
        expect(found is False or found.topics == frozenset(topics), f"{topics} came back as {found}")


def _is_name(topic: object) -> bool:
    return isinstance(topic, str) and 1 <= len(topic) <= 200 and set(topic) <= set(words.NAMES) and topic[0] != ":"
