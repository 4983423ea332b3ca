"""Who comes to the site: people, and what each of them shows to say who they are.

Everything is made in the database of the site, and nothing of it is asked of livefeed but what a site asks: to sign
names and to make tokens. What is spoiled or too old is made here by hand.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import Group, Permission, User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.core import signing
from rest_framework.authtoken.models import Token

from livefeed import create_token
from livefeed.topics import sign_topic, viewer_key

from .authenticators import BUG
from .models import ApiKey
from .settings import ALLOWED_ORIGIN

DAY = 86_400
JOB = "job:1"
ARTICLE = "rights_site.article"
MADE_UP = "madeupmadeupmadeupmadeupmadeup12"


@dataclass
class Person:
    """Somebody who comes: their user, if they have one, and the headers they send.

    ``signer``: for whom names are signed that are meant for them.
    """

    headers: dict[str, str]
    user: User | None = None
    session: str = ""
    signer: str = "anonymous"
    secrets: list[str] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """What the test is told of them."""
        user = None if self.user is None else self.user.pk
        return {"headers": self.headers, "user": user, "session": self.session, "secrets": self.secrets}


# -- users ------------------------------------------------------------------------------------------------------------


def new_user(trait: str = "") -> User:
    """Make a user: plain, who ``views`` by a permission or as a ``member`` of a group, ``staff``, a ``superuser``."""
    number = User.objects.count()
    user = User(username=f"user-{number}", is_staff=trait == "staff", is_superuser=trait == "superuser")
    user.set_password(f"password-of-{number}")
    user.save()
    if trait == "views":
        user.user_permissions.add(may_view())
    if trait == "member":
        user.groups.add(inner_circle())
    return user


def may_view() -> Permission:
    return Permission.objects.get(codename="view_article")


def inner_circle(name: str = "inner") -> Group:
    """Return a group that may view articles."""
    group, _ = Group.objects.get_or_create(name=name)
    if not group.permissions.exists():  # some rows take it away
        group.permissions.add(may_view())
    return group


# -- by what one is known ---------------------------------------------------------------------------------------------


def by_session(trait: str = "", **headers: str) -> Person:
    user = new_user(trait)
    key = session_of(user)
    return Person({**cookie(key), **headers}, user, key, viewer_key(user, None), [key])


def session_of(user: User | None) -> str:
    session = SessionStore()
    session["colour"] = "green"
    if user is not None:
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    key: str = session.session_key
    return key


def cookie(key: str) -> dict[str, str]:
    return {"Cookie": f"sessionid={key}"}


def by_token(trait: str = "", topics: list[str] | None = None, seconds: float = DAY, **headers: str) -> Person:
    user = new_user(trait)
    text = create_token(user, topics, max_age=seconds)
    return Person({**bearer(text), **headers}, user, "", viewer_key(user, None), [text, text.rpartition(".")[2]])


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def by_rest_token(trait: str = "") -> Person:
    user = new_user(trait)
    text = Token.objects.create(user=user).key
    return Person({"Authorization": f"Token {text}"}, user, "", viewer_key(user, None), [text])


def by_rest_session(trait: str = "") -> Person:
    return by_session(trait, **{"X-Client": "rest"})


def by_key(trait: str = "") -> Person:
    user = new_user(trait)
    text = ApiKey.objects.create(key=f"key-of-{user.username}-0123456789", owner=user).key
    return Person({"X-Api-Key": text}, user, "", viewer_key(user, None), [text])


def by_session_of_nobody(trait: str = "") -> Person:
    key = session_of(None)
    return Person(cookie(key), None, key, viewer_key(None, key), [key])


KNOWN_BY: dict[str, Callable[[str], Person]] = {
    "session": by_session,
    "token": by_token,
    "rest token": by_rest_token,
    "rest session": by_rest_session,
    "key": by_key,
    "session of nobody's": by_session_of_nobody,
}


# -- the table's rows -------------------------------------------------------------------------------------------------


def everybody() -> dict[str, Person]:
    """Make everybody who has a row in the table."""
    proxy, foreign = "Basic c3RhZ2luZzpvcGVu", "Bearer eyJhbGciOiJub25lIn0.e30."
    fetched, origin = "Sec-Fetch-Site", "Origin"
    return {
        "nobody": Person({}),
        "session of nobody's": by_session_of_nobody(),
        "made-up session": Person(cookie(MADE_UP), signer=viewer_key(None, MADE_UP)),
        "signed in": by_session(),
        "with permission": by_session("views"),
        "by group": by_session("member"),
        "staff": by_session("staff"),
        "superuser": by_session("superuser"),
        "inactive": _then(by_session("views"), _deactivate),
        "deleted": _then(by_session("views"), _delete),
        "session of an old password": _then(by_session("views"), _new_password),
        "expired session": _then(by_session("views"), _expire_session),
        "token": by_token("views"),
        "token for these": by_token("views", [ARTICLE, JOB]),
        "token for these, no permission": by_token("", [ARTICLE, JOB]),
        "token for others": by_token("views", ["another"]),
        "token for nobody": _for_nobody(["story", ARTICLE, JOB]),
        "expired token": by_token("views", None, 0.001),
        "spoiled token": _spoiled(by_token("views")),
        "token of an old password": _then(by_token("views"), _new_password),
        "token of an inactive user": _then(by_token("views"), _deactivate),
        "token of a deleted user": _then(by_token("views"), _delete),
        "token beside a superuser's cookie": by_token("", [ARTICLE], **cookie(session_of(new_user("superuser")))),
        "foreign bearer": Person({"Authorization": foreign}),
        "foreign bearer and session": by_session("views", Authorization=foreign),
        "staging proxy": Person({"Authorization": proxy}),
        "staging proxy and session": by_session("views", Authorization=proxy),
        "rest token": by_rest_token("views"),
        "deleted rest token": _then(by_rest_token("views"), _delete_rest_token),
        "rest token of an inactive user": _then(by_rest_token("views"), _deactivate),
        "rest session": by_rest_session("views"),
        "key": by_key("views"),
        "unknown key": Person({"X-Api-Key": "key-of-nobody-at-all"}, secrets=["key-of-nobody-at-all"]),
        "key that meets a bug": Person({"X-Api-Key": BUG}, secrets=[BUG]),
        "own page": by_session("views", **{fetched: "same-origin"}),
        "address bar": by_session("views", **{fetched: "none"}),
        "cross-site page": by_session("views", **{fetched: "cross-site", origin: "https://evil.example"}),
        "cross-site image": by_session("views", **{fetched: "cross-site"}),
        "same-site page": by_session("views", **{fetched: "same-site", origin: "http://127.0.0.1:1"}),
        "foreign origin over http": by_session("views", **{origin: "http://evil.example"}),
        "origin null": by_session("views", **{origin: "null"}),
        "allowed origin's prefix": by_session("views", **{origin: f"{ALLOWED_ORIGIN}.evil.example"}),
        "allowed origin": by_session("views", **{fetched: "cross-site", origin: ALLOWED_ORIGIN}),
        "allowed origin, nobody": Person({fetched: "cross-site", origin: ALLOWED_ORIGIN}),
    }


def _then(person: Person, happens: Callable[[Person], object]) -> Person:
    happens(person)
    return person


def _deactivate(person: Person) -> None:
    User.objects.filter(pk=person.user.pk).update(is_active=False)  # type: ignore[union-attr]


def _delete(person: Person) -> None:
    User.objects.filter(pk=person.user.pk).delete()  # type: ignore[union-attr]


def _new_password(person: Person) -> None:
    user = User.objects.get(pk=person.user.pk)  # type: ignore[union-attr]
    user.set_password("another")
    user.save()


def _expire_session(person: Person) -> None:
    Session.objects.filter(pk=person.session).update(expire_date="2001-01-01T00:00:00Z")


def _delete_rest_token(person: Person) -> None:
    Token.objects.filter(user=person.user).delete()


def _for_nobody(topics: list[str]) -> Person:
    text = create_token(None, topics, max_age=DAY)
    return Person(bearer(text), secrets=[text, text.rpartition(".")[2]])


def _spoiled(person: Person) -> Person:
    person.headers = bearer(other_end(person.headers["Authorization"].removeprefix("Bearer ")))
    return person


# -- signed names -----------------------------------------------------------------------------------------------------


def signed_names(person: Person, another: Person, somebody: Person) -> dict[str, str]:
    """Return the names of the job under which a person asks for it, by the table's columns."""
    own = sign_topic(JOB, person.signer)
    return {
        "signed": own,
        "another's": sign_topic(JOB, another.signer),
        "session's": sign_topic(JOB, somebody.signer),
        "old": signed_before(DAY + 60, person.signer),
        "spoiled": other_end(own),
        "nobody's": sign_topic(JOB, "anonymous"),
    }


def signed_before(seconds: int, signer: str) -> str:
    """Return a name of the job as it was signed some time ago."""
    moment = signing.b62_encode(int(time.time()) - seconds)
    return signing.Signer(sep="~", salt=f"livefeed.topic.{signer}").sign(f"{JOB}~{moment}")


def other_end(text: str) -> str:
    """Spoil a signature. Not its last character: some bits of that stand for nothing."""
    return f"{text[:-5]}{'A' if text[-5] != 'A' else 'B'}{text[-4:]}"
