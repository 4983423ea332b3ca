"""What a viewer may read, and whether that still holds. Closed: what no rule opens is refused.

Everything here blocks (rules ask the database) and runs in a request's or a pool's thread.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest

from .exceptions import FeedError
from .feeds import LiveFeed
from .registry import registry
from .topics import is_signed, plain_name, shortened, sign_topic, signature_holds
from .transactions import says_that_a_database_is_away
from .viewers import Viewer, page_viewer, today

logger = logging.getLogger("livefeed.access")


class Question(NamedTuple):
    """Whether a viewer may read a topic, asked for under a name that may be signed."""

    viewer: Viewer
    topic: str
    name: str


#: Who is asked about, as :attr:`Viewer.person` tells them apart, and which topic.
Asking = tuple[tuple[Any, ...], str]


class Grant(NamedTuple):
    """What became of the names a client asked for: the topics it may read, under the names it sent, and the others."""

    names: dict[str, str]
    refused: list[str]


def grant(viewer: Viewer, names: Iterable[str]) -> Grant:
    """Decide on each name: a feed's rule is always asked; a topic that no feed owns needs the viewer's signature."""
    questions = [Question(viewer, plain_name(name), name) for name in names]
    granted: dict[str, str] = {}
    refused: list[str] = []
    for question, opened in zip(questions, _answers(questions), strict=True):
        if opened:
            granted.setdefault(question.topic, question.name)
        elif question.name not in refused:
            refused.append(question.name)
    return Grant(granted, [name for name in refused if plain_name(name) not in granted])


def may_read(viewer: Viewer, topic: str) -> bool:
    """Tell whether a viewer may read a topic by its own name, which is not signed: what a page asks first."""
    return topic in grant(viewer, [topic]).names


def rechecked(streams: Sequence[tuple[Viewer, dict[str, str]]]) -> list[Viewer | None]:
    """Return the viewer of each stream (who, and which names) as they are now; None where a right was lost.

    Each viewer is looked up once and each of their rules asked once, however many streams they have.
    """
    known = {viewer.credential: viewer for viewer, _ in streams}
    now = dict(zip(known, today(list(known.values())), strict=True))
    present = [now[viewer.credential] for viewer, _ in streams]
    asked = [
        [Question(viewer, topic, name) for topic, name in names.items()] if viewer is not None else []
        for viewer, (_, names) in zip(present, streams, strict=True)
    ]
    answers = iter(_answers([question for questions in asked for question in questions], again=True))
    kept = [all(list(islice(answers, len(questions)))) for questions in asked]
    return [viewer if keeps else None for viewer, keeps in zip(present, kept, strict=True)]


def _answers(questions: Sequence[Question], *, again: bool = False) -> list[bool]:
    """Answer questions in their order, each different one once; ``again`` at a look at open streams."""
    rules: dict[str, dict[Asking, tuple[Any, str]]] = {}
    for viewer, topic, _ in questions:
        if feed := registry.owner(topic):
            rules.setdefault(feed.name, {})[viewer.person, topic] = (viewer.user, topic)
    opened: dict[Asking, bool] = {}
    for asked in rules.values():
        feed = registry.owner(next(iter(asked))[1])
        assert feed is not None
        opened.update(zip(asked, _ask(feed, list(asked.values()), again=again), strict=True))
    return [_answer(question, opened) for question in questions]


def _answer(question: Question, opened: dict[Asking, bool]) -> bool:
    """Where a token has a scope, nothing else opens anything, and a topic that no feed owns needs nothing else."""
    viewer, topic, name = question
    if viewer.scope is not None and topic not in viewer.scope:
        return False
    if registry.owner(topic) is not None:
        return opened[viewer.person, topic]
    return viewer.scope is not None or (is_signed(name) and signature_holds(name, viewer.key))


def _ask(feed: LiveFeed, asked: Sequence[tuple[Any, str]], *, again: bool) -> list[bool]:
    """Ask a feed's rule about users and topics: all at once if it has a way to, so that one failure is everybody's.

    A rule that fails opens nothing.
    """
    if not feed.answers_in_bulk:
        return [_ask_one(feed, user, topic, again=again) for user, topic in asked]
    try:
        answers = _resolved(feed.get_view_permissions(asked))
        if not isinstance(answers, (list, tuple)):  # of a dict the keys would be the answers, and all of them yes
            raise FeedError(f"get_view_permissions() returned a {type(answers).__name__}. Return a list.")
        if len(answers) != len(asked):
            raise FeedError(f"get_view_permissions() gave {len(answers)} answers to {len(asked)} questions.")
        return [_opens(answer) for answer in answers]
    except Exception as error:
        if _nobody_knows(error, again=again):
            raise
        logger.exception("%s.get_view_permissions failed; all it was asked for is refused.", type(feed).__name__)
        return [False] * len(asked)


def _ask_one(feed: LiveFeed, user: Any, topic: str, *, again: bool) -> bool:
    try:
        return _opens(feed.has_view_permission(user, topic))
    except Exception as error:
        if _nobody_knows(error, again=again):
            raise
        logger.exception("%s.has_view_permission failed for %s; it is refused.", type(feed).__name__, topic)
        return False


def _opens(answer: Any) -> bool:
    """Tell whether a rule's answer is yes. A coroutine is awaited, and a function is none: both would count as true."""
    answer = _resolved(answer)
    if callable(answer):
        raise FeedError(f"The answer is {shortened(answer)}, which was not called. Return whether the user may read.")
    return bool(answer)


def _nobody_knows(error: Exception, *, again: bool) -> bool:
    """Tell whether the database had no answer. Who connects is asked to come back then, whatever the reason.

    A look at open streams is given up where the database is away. One rule's own trouble (a timeout) must not spare
    all others: there it is a rule that fails.
    """
    return says_that_a_database_is_away(error) if again else isinstance(error, (OperationalError, InterfaceError))


def _resolved(answer: Any) -> Any:
    return async_to_sync(_awaited)(answer) if inspect.isawaitable(answer) else answer


async def _awaited(answer: Any) -> Any:
    return await answer


def signed_name(request: HttpRequest, topic: str) -> str:
    """Return a topic's name, signed for whoever sent this request: with it they, and nobody else, may read the topic.

    It is how a view opens a topic that no feed owns. For somebody who is not signed in the name holds for their
    session, which is begun where there is none. It is good for ``LIVEFEED_SIGNATURE_SECONDS``.

    Raises :exc:`~livefeed.exceptions.InvalidTopic`, and ImproperlyConfigured on a site without sessions, or whose new
    sessions have no key (signed_cookies): a name for somebody who is not signed in would be everybody's.
    """
    viewer = page_viewer(request)
    if not viewer.is_user and not viewer.session_key:
        session: Any = getattr(request, "session", None)
        if session is None:
            raise ImproperlyConfigured(
                "A topic's name is signed for a user or a session, and this request has neither. Add "
                "django.contrib.sessions.middleware.SessionMiddleware to MIDDLEWARE."
            )
        session.create()
        viewer = page_viewer(request)
        if not viewer.session_key:  # the name would be everybody's who is not signed in
            raise ImproperlyConfigured(
                f"A topic's name is signed for a user or a session, and a new session of {type(session).__module__} "
                "has no key. Use another SESSION_ENGINE, or sign names for users only."
            )
    return sign_topic(topic, viewer.key)
