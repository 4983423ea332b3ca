"""A feed for each kind of rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.auth.models import Group
from django.db.models import QuerySet

from livefeed import Event, LiveFeed, register

from .models import Article, Desk, Entry, Story


@register
class StoryFeed(LiveFeed):
    """Open to everybody, by its name and by each key."""

    model = Story
    name = "story"
    fields = ["title"]
    public = True

    def get_topics(self, instance: Story) -> list[str]:
        return [self.name, f"{self.name}:{instance.pk}"]

    def get_queryset(self, topic: str) -> QuerySet[Story]:
        stories = Story.objects.order_by("pk")
        return stories.filter(pk=topic.partition(":")[2]) if ":" in topic else stories


@register
class ArticleFeed(LiveFeed):
    """Says nothing, so Django's view permission on the model decides."""

    model = Article
    fields = ["title"]


@register
class MineFeed(LiveFeed):
    """Each user's own: the user is in the key."""

    name = "mine"

    def has_view_permission(self, user: Any, topic: str) -> bool:
        return user.is_authenticated and topic == f"mine:{user.pk}"


@register
class StaffFeed(LiveFeed):
    """A rule that is asynchronous, and asks the database."""

    name = "staff"

    async def has_view_permission(self, user: Any, topic: str) -> bool:
        return user.is_staff and await Story.objects.aexists()


@register
class BrokenFeed(LiveFeed):
    name = "broken"

    def has_view_permission(self, user: Any, topic: str) -> bool:
        raise RuntimeError("on purpose")


@register
class ClubFeed(LiveFeed):
    """Open to the members of the group in the key; the rule is asked about many at once."""

    name = "club"

    def get_view_permissions(self, asked: Sequence[tuple[Any, str]]) -> list[bool]:
        pks = {user.pk for user, _ in asked if user.is_authenticated}
        members = set(Group.objects.filter(user__in=pks).values_list("name", "user"))
        return [(topic.partition(":")[2], user.pk) in members for user, topic in asked]


@register
class DeskFeed(LiveFeed):
    """What only the site knows: who sits at a desk. A desk of the name "burning" makes the rule fail."""

    name = "desk"

    def has_view_permission(self, user: Any, topic: str) -> bool:
        desk = Desk.objects.filter(pk=topic.partition(":")[2], members=user.pk).first()
        if desk is not None and desk.name.startswith("burning"):
            raise RuntimeError("on purpose")
        return desk is not None


@register
class LedgerFeed(LiveFeed):
    """Staff sees the margin, and entries that nobody else sees."""

    model = Entry
    name = "ledger"
    fields = ["title", "margin", "hidden"]

    def has_view_permission(self, user: Any, topic: str) -> bool:
        return user.is_authenticated

    def get_data_for(self, user: Any, event: Event) -> Any:
        if user.is_staff:
            return event.data
        return None if event.data["hidden"] else {"pk": event.data["pk"], "title": event.data["title"]}


@register
class QuietFeed(LiveFeed):
    """Neither a model nor a rule: closed."""

    name = "quiet"
