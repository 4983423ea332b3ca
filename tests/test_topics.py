from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from hypothesis import given
from hypothesis import strategies as st

from livefeed.exceptions import InvalidTopic
from livefeed.topics import (
    hashed,
    is_signed,
    plain_name,
    prefix,
    sign_topic,
    signature_holds,
    validate_topic,
    viewer_key,
)
from tests.testapp.models import Author

names = st.from_regex(r"[A-Za-z0-9._-][A-Za-z0-9._:-]{0,199}", fullmatch=True)


@given(names)
def test_letters_digits_and_four_marks_make_a_topic(name: str) -> None:
    assert validate_topic(name) == name


@pytest.mark.parametrize("name", ["a", "news.article", "news.article:7", "build:42:log", "x" * 200, "-", "a_b-c.d"])
def test_names_as_people_write_them_are_topics(name: str) -> None:
    assert validate_topic(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 201,
        ":",
        ":7",
        "two words",
        "a\nb",
        "tail\n",
        "nul\0",
        "größe",
        "a/b",
        "a~b",
        "a,b",
        "a?b",
        None,
        7,
        b"a",
        ["a"],
    ],
)
def test_a_malformed_topic_is_refused_with_the_value_the_rule_and_the_cure(name: object) -> None:
    with pytest.raises(InvalidTopic) as caught:
        validate_topic(name)
    message = str(caught.value)
    assert repr(name)[:90] in message
    assert "1 to 200 letters, digits" in message
    assert 'not beginning with ":"' in message


def test_a_very_long_value_is_shortened_in_the_message() -> None:
    with pytest.raises(InvalidTopic) as caught:
        validate_topic("ä" * 10_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("topic", "owner"), [("news.article", "news.article"), ("news.article:7", "news.article"), ("a:b:c", "a")]
)
def test_a_topic_belongs_to_the_feed_named_before_the_first_colon(topic: str, owner: str) -> None:
    assert prefix(topic) == owner


@given(names)
def test_a_signed_name_holds_for_its_viewer_and_for_nobody_else(name: str) -> None:
    signed = sign_topic(name, "user:1")
    assert is_signed(signed)
    assert not is_signed(name)
    assert plain_name(signed) == plain_name(name) == name
    assert signature_holds(signed, "user:1")
    assert not signature_holds(signed, "user:2")
    assert not signature_holds(signed, "anonymous")


def test_a_signature_does_not_hold_for_another_topic_or_when_it_is_bent() -> None:
    _, moment, signature = sign_topic("build:1", "user:1").split("~")
    assert not signature_holds(f"build:2~{moment}~{signature}", "user:1")
    assert not signature_holds(f"build:1~{moment}~{signature[:-1]}", "user:1")
    assert not signature_holds(f"build:1~{moment}x~{signature}", "user:1")
    for bent in ("build:1", "build:1~", "build:1~~", "~", "build:1~a~b~c"):
        assert not signature_holds(bent, "user:1")


def test_a_signature_expires(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.LIVEFEED_SIGNATURE_SECONDS = 100.0
    monkeypatch.setattr("django.core.signing.time.time", lambda: 1_000_000)
    signed = sign_topic("build:1", "user:1")
    monkeypatch.setattr("django.core.signing.time.time", lambda: 1_000_099)
    assert signature_holds(signed, "user:1")
    monkeypatch.setattr("django.core.signing.time.time", lambda: 1_000_101)
    assert not signature_holds(signed, "user:1")


def test_another_site_s_signature_does_not_hold(settings: Any) -> None:
    signed = sign_topic("build:1", "user:1")
    settings.SECRET_KEY = "of another site"
    assert not signature_holds(signed, "user:1")


def test_a_malformed_topic_is_not_signed() -> None:
    with pytest.raises(InvalidTopic):
        sign_topic("a~b", "user:1")


def test_a_viewer_is_the_user_else_the_session_else_anybody() -> None:
    assert viewer_key(User(pk=7), "key") == "user:7"
    assert viewer_key(AnonymousUser(), "key") == "session:key"
    assert viewer_key(AnonymousUser(), None) == "anonymous"
    assert viewer_key(None, "") == "anonymous"


def test_a_digest_is_stable_keyed_and_says_nothing(settings: Any) -> None:
    digest = hashed("session", "s3cret")
    assert digest == hashed("session", "s3cret") != hashed("address", "s3cret")
    assert "s3cret" not in digest
    settings.SECRET_KEY = "of another site"
    assert digest != hashed("session", "s3cret")


def test_users_of_another_model_are_others_though_their_key_is_the_same() -> None:
    class Guest:
        pk, is_authenticated = 7, True

    author = Author(pk=7)
    author.is_authenticated = True  # type: ignore[attr-defined]
    keys = [viewer_key(user, None) for user in (User(pk=7), author, Guest())]
    assert keys == ["user:7", "user:testapp.author/7", "user:7"]
