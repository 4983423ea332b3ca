"""Livefeed's own tokens: what they are made of, what they open, when they end, and the command that makes them."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable
from datetime import timedelta
from string import ascii_letters
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core import signing
from django.core.management import CommandError, call_command
from hypothesis import example, given
from hypothesis import strategies as st

from livefeed import create_token
from livefeed.exceptions import AuthenticationFailed, InvalidToken, InvalidTopic
from livefeed.tokens import MAX_LENGTH, PREFIX, Token, password_digest, password_holds, read_token

#: RFC 6750, section 2.1: b64token.
B64TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")


def user_of(pk: int = 7, password: str = "one") -> User:
    return User(pk=pk, username=f"user{pk}", password=password)


def read(text: str) -> Token:
    token = read_token(text)
    assert token is not None
    return token


# -- what is in it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_age", [60, 60.0, timedelta(minutes=1)])
def test_a_token_says_whose_it_is_what_it_opens_and_until_when(max_age: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    token = read(create_token(user_of(), ["build:2", "build:1", "build:2"], max_age=max_age))
    assert (token.user_id, token.topics, token.expires_at) == ("7", {"build:1", "build:2"}, 1060.0)
    assert password_holds(user_of(), token.password)


def test_a_token_without_topics_opens_what_the_rules_open() -> None:
    assert read(create_token(user_of(), max_age=60)).topics is None


def test_a_token_for_nobody_names_no_user_and_no_password() -> None:
    token = read(create_token(None, ["build:1"], max_age=60))
    assert (token.user_id, token.topics, token.password) == (None, {"build:1"}, "")


@pytest.mark.parametrize("count", [0, 1, 50])
def test_a_token_has_only_characters_of_a_bearer_token_and_begins_with_our_name(count: int) -> None:
    topics = [f"build:{n}._-" for n in range(count)] or None
    text = create_token(user_of(), topics, max_age=60)
    assert B64TOKEN.fullmatch(text)
    assert text.startswith("livefeed_")
    assert len(text) < 600


def test_neither_password_nor_its_session_hash_is_in_a_token() -> None:
    user = user_of(password="pbkdf2_sha256$secret")
    content = repr(signing.Signer(sep=".", salt="livefeed.token").unsign_object(create_token(user, max_age=60)[9:]))
    assert "secret" not in content
    assert user.get_session_auth_hash() not in content


# -- what can't be made -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "max_age", [0, -1, float("nan"), float("inf"), True, None, "3600", timedelta(0), timedelta(days=100_000)]
)
def test_a_token_ends(max_age: Any) -> None:
    with pytest.raises(InvalidToken, match=r"max_age is .*more than 0, at most"):
        create_token(user_of(), max_age=max_age)


def test_how_long_a_token_is_good_for_has_to_be_said() -> None:
    with pytest.raises(TypeError, match="max_age"):
        create_token(user_of())  # type: ignore[call-arg]


@pytest.mark.parametrize("user", [AnonymousUser(), User(username="unsaved"), "ann", 7])
def test_a_token_is_for_a_user_that_was_saved(user: Any) -> None:
    with pytest.raises(InvalidToken, match="is no user that was saved"):
        create_token(user, ["build:1"], max_age=60)


def test_a_token_for_nobody_needs_topics() -> None:
    with pytest.raises(InvalidToken, match="Name topics, or a user"):
        create_token(None, max_age=60)


@pytest.mark.parametrize(("topics", "words"), [([], "at least one"), ("build", "Use a list"), (b"build", "Use a list")])
def test_topics_are_a_list_of_names(topics: Any, words: str) -> None:
    with pytest.raises(InvalidToken, match=words):
        create_token(user_of(), topics, max_age=60)


@pytest.mark.parametrize("topic", ["a b", "", "build~1~x", ":x", None])
def test_a_topic_of_a_token_is_a_name(topic: Any) -> None:
    with pytest.raises(InvalidTopic):
        create_token(user_of(), [topic], max_age=60)


def test_a_token_opens_no_more_topics_than_a_connection_has(settings: Any) -> None:
    settings.LIVEFEED_MAX_TOPICS = 3
    assert create_token(user_of(), ["a", "b", "c", "c"], max_age=60)
    with pytest.raises(InvalidToken, match="4 topics are too many; LIVEFEED_MAX_TOPICS allows 3"):
        create_token(user_of(), ["a", "b", "c", "d"], max_age=60)


def test_a_token_that_no_header_has_room_for_is_not_made() -> None:
    names = ["".join(random.Random(n).choices(ascii_letters, k=200)) for n in range(50)]
    with pytest.raises(InvalidToken, match=f"servers take headers of up to {MAX_LENGTH}"):
        create_token(None, names, max_age=60)


# -- what does not hold -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "abc", "eyJhbGciOi.J9.x", "livefeed", "Livefeed_x", "9944b09199c62bcf9418ad846d"])
def test_a_token_of_others_is_none_of_ours(text: str) -> None:
    assert read_token(text) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-1],
        lambda text: text + "x",
        lambda text: text + ".",
        lambda text: text.replace(".", "", 1),
        lambda text: PREFIX,
        lambda text: PREFIX + ".",
        lambda text: PREFIX + "ä",
        lambda text: PREFIX + "\ud800",
        lambda text: PREFIX + "\0",
        lambda text: PREFIX + text,
        lambda text: PREFIX + "x" + text.removeprefix(PREFIX),
        lambda text: PREFIX + signing.dumps({"u": "7", "e": time.time() + 60}),
        lambda text: PREFIX + signing.Signer(sep=".", salt="other").sign_object({"u": "7", "e": time.time() + 60}),
    ],
)
def test_a_token_that_was_changed_fails_and_is_not_in_the_error(spoil: Callable[[str], str]) -> None:
    text = spoil(create_token(user_of(), ["build:1"], max_age=60))
    with pytest.raises(AuthenticationFailed) as failed:
        read_token(text)
    assert len(text) < 12 or text.removeprefix(PREFIX)[:8] not in str(failed.value)
    assert failed.value.challenge == 'Bearer error="invalid_token"'


@given(st.text(max_size=200))
@example("." * 200)
def test_whatever_follows_our_name_is_no_token(text: str) -> None:
    with pytest.raises(AuthenticationFailed):
        read_token(PREFIX + text)


def test_a_token_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    text = create_token(user_of(), max_age=60)
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 59)
    assert read(text).user_id == "7"
    monkeypatch.setattr("time.time", lambda: now + 61)
    with pytest.raises(AuthenticationFailed, match="has expired"):
        read_token(text)


def test_a_token_holds_under_an_older_secret_key_as_long_as_that_is_listed(settings: Any) -> None:
    settings.SECRET_KEY = "older"
    text = create_token(user_of(), ["build:1"], max_age=60)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "newer", ["other", "older"]
    assert password_holds(user_of(), read(text).password)
    settings.SECRET_KEY_FALLBACKS = ["other"]
    with pytest.raises(AuthenticationFailed):
        read_token(text)


def test_a_digest_is_of_one_password_and_under_one_purpose(settings: Any) -> None:
    digest = password_digest(user_of())
    assert password_holds(user_of(), digest)
    assert not password_holds(user_of(password="two"), digest)
    assert not password_holds(user_of(), "")
    assert digest not in user_of().get_session_auth_hash()


def test_a_user_without_a_password_has_none_to_change() -> None:
    class Robot:
        pk = 7
        is_authenticated = True

    token = read(create_token(Robot(), max_age=60))
    assert (token.user_id, token.password) == ("7", "")
    assert password_holds(Robot(), "")
    assert not password_holds(Robot(), "x")


def test_a_password_of_one_s_own_kind_may_have_no_fallbacks() -> None:
    class Own:
        def get_session_auth_hash(self) -> str:
            return "version 3"

    assert password_holds(Own(), password_digest(Own()))
    assert not password_holds(Own(), "")


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def ann(db: None) -> User:
    return User.objects.create_user("ann", password="secret")


def made(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Token, str]:
    """Return the token that the command made, and what it says of it."""
    call_command("livefeed_token", *arguments)
    out, err = capsys.readouterr()
    (text,) = out.splitlines()
    assert text not in err
    return read(text), err


def test_livefeed_token_prints_the_token_alone_on_stdout(
    ann: User, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    token, said = made(capsys, "ann")
    assert (token.user_id, token.topics) == (str(ann.pk), None)
    assert password_holds(ann, token.password)
    assert "ann" in said
    assert token.expires_at == 1000.0 + 3600


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5m", 90), ("2h", 7200), ("7d", 604_800), ("1w", 604_800)]
)
@pytest.mark.usefixtures("ann")
def test_livefeed_token_takes_times_as_people_write_them(
    text: str, seconds: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    token, said = made(capsys, "ann", "--max-age", text)
    assert token.expires_at == 1000.0 + seconds
    assert text in said


def test_livefeed_token_finds_a_user_by_key(ann: User, capsys: pytest.CaptureFixture[str]) -> None:
    assert made(capsys, "--id", str(ann.pk))[0].user_id == str(ann.pk)


@pytest.mark.usefixtures("ann")
def test_livefeed_token_for_topics_says_which_of_them_have_rules(capsys: pytest.CaptureFixture[str]) -> None:
    token, said = made(capsys, "ann", "--topic", "testapp.review", "--topic", "job:1")
    assert token.topics == {"testapp.review", "job:1"}
    assert "as the rules say for testapp.review)" in said


def test_livefeed_token_for_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    token, said = made(capsys, "--anonymous", "--topic", "build:1")
    assert (token.user_id, token.topics) == (None, {"build:1"})
    assert "nobody" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bob"], "There is no user with the username 'bob'"),
        (["--id", "0"], "There is no user with the primary key '0'"),
        (["--id", "x"], "There is no user with the primary key 'x'"),
        (["ann", "--max-age", "soon"], "--max-age is 'soon'"),
        (["ann", "--max-age", "0"], "max_age is 0.0"),
        (["ann", "--topic", "a b"], "'a b' is not a topic name"),
        (["--anonymous"], "Name topics, or a user"),
        ([], "one of the arguments"),
        (["ann", "--anonymous"], "not allowed with argument"),
    ],
)
@pytest.mark.usefixtures("ann")
def test_livefeed_token_says_what_it_can_t_do(arguments: list[str], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        call_command("livefeed_token", *arguments)


def test_livefeed_token_makes_none_that_would_open_nothing(ann: User) -> None:
    User.objects.update(is_active=False)
    with pytest.raises(CommandError, match="ann is not active"):
        call_command("livefeed_token", "ann")


def test_no_token_is_ever_logged(ann: User, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    text = create_token(ann, max_age=60)
    read_token(text)
    with pytest.raises(AuthenticationFailed):
        read_token(text + "x")
    assert text[:20] not in caplog.text
