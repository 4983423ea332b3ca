from typing import Any

from livefeed import LiveFeed, register

from .models import Article, Elsewhere, Note, Review, Task


@register
class ArticleFeed(LiveFeed):
    model = Article
    fields = ["title", "votes"]
    public = True


@register
class ArticleDetailFeed(LiveFeed):
    """The same model again, with everything that has to be read from the database."""

    model = Article
    name = "detail"
    fields = ["title", "votes", "price", "published_on", "author__name", "tags", "url"]


@register
class ReviewFeed(LiveFeed):
    model = Review
    fields = ["title", "stars"]


@register
class NoteFeed(LiveFeed):
    model = Note
    fields = ["text", "board"]

    def get_topics(self, note: Note) -> list[str]:
        return [f"{self.name}:{note.board}", f"{self.name}:of-{note.owner_id}"] if note.shown else []

    def has_view_permission(self, user: Any, topic: str) -> bool:
        return topic.startswith(f"{self.name}:open") or topic == f"{self.name}:of-{user.pk}"

    def get_queryset(self, topic: str) -> Any:
        return Note.objects.filter(board=topic.partition(":")[2], shown=True).order_by("-pk")


@register
class TaskFeed(LiveFeed):
    model = Task
    fields = "__all__"
    insert = "append"


@register
class ElsewhereFeed(LiveFeed):
    model = Elsewhere
    fields = ["text"]
    public = True


@register
class BuildFeed(LiveFeed):
    """No model: published to by hand."""

    name = "build"

    async def has_view_permission(self, user: Any, topic: str) -> bool:
        return user.is_authenticated


@register
class PlainFeed(LiveFeed):
    name = "plain"
    public = True
    event_names = False
