from livefeed import LiveFeed, register

from .models import Article


@register
class ArticleFeed(LiveFeed):
    model = Article
    fields = ["title", "url"]
    public = True
