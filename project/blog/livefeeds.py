"""Which changes go to which pages, and who may see them."""

from typing import Any

from django.db.models import QuerySet

from livefeed import LiveFeed, register
from project.blog.models import Entry, Notice, Reading


class EntryData(LiveFeed):
    """What a page is told of an entry."""

    fields = ["status_since"]  # what entries are ordered by: so a page can put one into its place

    def get_data(self, entry: Entry) -> dict[str, Any]:
        return {
            "title": entry.title,
            "text": entry.text,
            "author": entry.author.get_full_name() or entry.author.get_username(),
            "section": entry.section.name,
            "section_url": entry.section.get_absolute_url(),
            "url": entry.get_absolute_url(),
            "pinned": entry.pinned,
            "edited": entry.edited,
            "applause": entry.applause,
            "status_since": entry.status_since,
        }


@register
class EntryFeed(EntryData):
    """Published entries, for everybody: all of them, those of one section, and each alone.

    Publishing a draft makes it enter these topics (`created`), withdrawing it makes it leave them (`deleted`).
    """

    model = Entry
    public = True
    limit = 30

    def get_topics(self, entry: Entry) -> list[str]:
        if not entry.is_published:
            return []
        return [self.name, f"{self.name}:{entry.section.slug}", f"{self.name}:id:{entry.pk}"]

    def get_queryset(self, topic: str) -> QuerySet[Entry]:
        entries = Entry.objects.published().select_related("author", "section")
        match topic.split(":"):
            case [_]:
                return entries
            case [_, slug]:
                return entries.filter(section__slug=slug)
            case [_, "id", pk] if pk.isdecimal():
                return entries.filter(pk=pk)
        return entries.none()


@register
class DeskFeed(EntryData):
    """Drafts, for the staff, as HTML that Django renders once for all of them."""

    model = Entry
    name = "blog.desk"
    limit = 50
    html = True

    def get_topics(self, entry: Entry) -> list[str]:
        return [] if entry.is_published else [self.name]

    def get_data(self, entry: Entry) -> dict[str, Any]:
        return {**super().get_data(entry), "edit_url": entry.get_edit_url()}

    def get_queryset(self, topic: str) -> QuerySet[Entry]:
        return Entry.objects.drafts().select_related("author", "section")

    def has_view_permission(self, user: Any, topic: str) -> bool:
        return bool(user.is_active and user.is_staff)


@register
class NoticeFeed(LiveFeed):
    """Notices, each to its recipient alone: everybody has a topic of their own, `notice:<user pk>`."""

    model = Notice
    name = "notice"

    def get_topics(self, notice: Notice) -> list[str]:
        return [f"{self.name}:{notice.recipient_id}"]

    def get_data(self, notice: Notice) -> dict[str, Any]:
        return {"text": notice.text, "url": notice.entry.get_absolute_url(), "time": notice.created_at}

    def get_queryset(self, topic: str) -> QuerySet[Notice]:
        _, _, recipient = topic.partition(":")
        return Notice.objects.filter(recipient=recipient).select_related("entry")

    def has_view_permission(self, user: Any, topic: str) -> bool:
        return bool(user.is_authenticated and topic == f"{self.name}:{user.pk}")


@register
class ReadingFeed(LiveFeed):
    """The tide gauge, for everybody: each reading is the new value."""

    model = Reading
    fields = ["cm", "created_at"]
    public = True


@register
class AlertFeed(LiveFeed):
    """What every visitor is told at once, wherever on the site they are. No model: published to by hand."""

    name = "blog.alert"
    public = True
