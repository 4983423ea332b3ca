from __future__ import annotations

from typing import Any

from livefeed import LiveFeed, register

from .models import Member


@register
class BoardFeed(LiveFeed):
    """Open to the members of a board."""

    name = "board"

    def has_view_permission(self, user: Any, topic: str) -> bool:
        return topic.partition(":")[2] in getattr(user, "boards", ())


@register
class MemberFeed(LiveFeed):
    """Without a rule of its own: closed, for members have no permissions."""

    model = Member
    fields = ["email"]
