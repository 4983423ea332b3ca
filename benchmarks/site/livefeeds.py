"""The feeds: one of a model, one of what is published by hand; open to who is signed in, or to all."""

import os
from typing import Any

from livefeed import LiveFeed, register

from .models import Article

PUBLIC = os.environ.get("BENCH_PUBLIC", "1") == "1"


@register
class ArticleFeed(LiveFeed):
    """Articles, as they are saved."""

    model = Article
    name = "article"
    fields = ["title", "url"]
    public = True


@register
class NewsFeed(LiveFeed):
    """What the benchmark publishes."""

    name = "news"

    def has_view_permission(self, user: Any, topic: str) -> bool:
        return PUBLIC or user.is_authenticated
