"""What a viewer may read, and whether that still holds. Closed: what no rule opens is refused.

Everything here blocks (rules ask the database) and runs in a request's or a pool's thread.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from asgiref.sync import async_to_sync

from .registry import registry
from .topics import is_signed, plain_name, signature_holds
from .viewers import Viewer, today

logger = logging.getLogger("livefeed.access")


#: What was decided in one look: for whom, which name, and within which scope.
Rules = dict[tuple[str, str, frozenset[str] | None], bool]


class Grant(NamedTuple):
    """What became of the names a client asked for: the topics it may read, under the names it sent, and the others."""

    names: dict[str, str]
    refused: list[str]


def grant(viewer: Viewer, names: Iterable[str]) -> Grant:
    """Decide on each name: a feed's rule is always asked; a topic that no feed owns needs the viewer's signature."""
    granted: dict[str, str] = {}
    refused: list[str] = []
    for name in names:
        topic = plain_name(name)
        if topic in granted:
            continue
        if _opened(viewer, topic, name):
            granted[topic] = name
        else:
            refused.append(name)
    return Grant(granted, refused)


def _opened(viewer: Viewer, topic: str, name: str) -> bool:
    """Where a token has a scope, nothing else opens anything, and a topic that no feed owns needs nothing else."""
    if viewer.scope is not None and topic not in viewer.scope:
        return False
    if registry.owner(topic) is not None:
        return may_read(viewer.user, topic)
    return viewer.scope is not None or (is_signed(name) and signature_holds(name, viewer.key))


def may_read(user: Any, topic: str) -> bool:
    """Ask the rule of the feed that owns a topic. A rule that fails opens nothing."""
    feed = registry.owner(topic)
    if feed is None:
        return False
    try:
        answer = feed.has_view_permission(user, topic)
        if inspect.isawaitable(answer):
            answer = async_to_sync(_awaited)(answer)
    except Exception:
        logger.exception("%s.has_view_permission failed for %s; it is refused.", type(feed).__name__, topic)
        return False
    return bool(answer)


async def _awaited(answer: Any) -> Any:
    return await answer


def revoked(streams: Sequence[tuple[Viewer, dict[str, str]]]) -> list[int]:
    """Return which of these streams (who, and which names) lost a right that they were opened with, by index."""
    known = {viewer.credential: viewer for viewer, _ in streams}
    now = dict(zip(known, today(list(known.values())), strict=True))
    rules: Rules = {}
    lost = []
    for index, (viewer, names) in enumerate(streams):
        who = now[viewer.credential]
        if who is None or not all(_still_opened(who, topic, name, rules) for topic, name in names.items()):
            lost.append(index)
    return lost


def _still_opened(viewer: Viewer, topic: str, name: str, rules: Rules) -> bool:
    rule = (viewer.key, name if registry.owner(topic) is None else topic, viewer.scope)
    if rule not in rules:
        rules[rule] = _opened(viewer, topic, name)
    return rules[rule]
