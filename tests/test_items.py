"""Items as HTML that the server renders once, where the event of a row is published."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.template import Context, Template, TemplateSyntaxError
from django.test import RequestFactory
from django.utils import translation

from livefeed import LiveFeed, snapshots
from livefeed.items import event_data
from tests.testapp.models import Article
from tests.writing import stored

pytest_plugins = ["tests.reading_fixtures"]
pytestmark = pytest.mark.django_db(transaction=True)

ITEM = """<article data-key="{{ key }}" data-order="{{ order }}">
{{ item.title }}, {{ item.published_on|date:"j F Y" }}: {{ item.price }}</article>"""


class Rendered(LiveFeed):
    model = Article
    name = "rendered"
    fields = ["title", "price", "published_on"]
    public = True
    html = True

    def get_queryset(self, topic: str) -> Any:
        return Article.objects.order_by("-published_on", "pk")


@pytest.fixture
def rendered(with_feed: Callable[[type[LiveFeed]], None], settings: Any, tmp_path: Path) -> None:
    """A feed whose items are rendered by a template of the site's own."""
    (tmp_path / "livefeed").mkdir()
    (tmp_path / "livefeed" / "rendered.html").write_text(ITEM)
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [tmp_path]}]
    settings.LANGUAGE_CODE = "fr"
    with_feed(Rendered)


def published() -> Any:
    return stored("rendered")[-1]


@pytest.mark.usefixtures("rendered")
def test_an_event_brings_the_key_the_place_and_the_html_and_no_other_field() -> None:
    article = Article.objects.create(title="<Bonjour>", price="1.50", published_on=date(2030, 3, 2))
    assert published().data == {
        "pk": article.pk,
        "published_on": "2030-03-02",
        "html": f'<article data-key="{article.pk}" data-order="[&quot;2030-03-02&quot;,{article.pk}]">\n'
        "&lt;Bonjour&gt;, 2 mars 2030: 1,50</article>",
    }


@pytest.mark.usefixtures("rendered")
def test_the_html_is_in_the_site_s_language_and_not_in_the_writer_s() -> None:
    with translation.override("de"):
        Article.objects.create(title="Hallo", published_on=date(2030, 3, 2))
    assert "2 mars 2030" in published().data["html"]


@pytest.mark.usefixtures("rendered")
def test_what_is_deleted_says_its_key_and_nothing_else() -> None:
    article = Article.objects.create(title="Bonjour")
    pk = article.pk
    article.delete()
    assert (published().type, published().data) == ("deleted", {"pk": pk})


@pytest.mark.usefixtures("rendered")
def test_a_page_and_a_snapshot_show_the_same_html_as_the_event() -> None:
    Article.objects.create(title="Bonjour", published_on=date(2030, 3, 2))
    request = RequestFactory().get("/")
    request.user = AnonymousUser()
    with translation.override("de"):
        page = Template('{% load livefeed %}{% livefeed "rendered" %}').render(Context({"request": request}))
        assert published().data["html"] in snapshots.snapshot("rendered", request.user)
    assert published().data["html"] in page
    assert 'render="html"' in page
    assert 'order="-published_on pk"' in page
    assert "<template>" not in page
    assert 'data-text-connecting="Verbinde …"' in page


@pytest.mark.usefixtures("rendered")
def test_a_value_bound_to_a_row_is_what_its_events_say() -> None:
    article = Article.objects.create(title="Bonjour")
    shown = snapshots.value_snapshot("rendered", AnonymousUser(), str(article.pk))
    assert "data-value=" in shown
    assert "&quot;html&quot;" in shown
    article.refresh_from_db()
    assert event_data(Rendered(), article)["html"] == published().data["html"]


def test_a_feed_whose_main_topic_has_no_items_is_in_no_order(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    class Keyed(Rendered):
        name = "keyed"

        def get_queryset(self, topic: str) -> Any:
            return Article.objects.filter(pk=topic.split(":")[1])

    with_feed(Keyed)
    article = Article.objects.create(title="Hello")
    assert list(event_data(Keyed(), article)) == ["pk", "html"]
    assert "data-order" not in event_data(Keyed(), article)["html"]


def test_a_template_that_fails_fails_the_save_before_the_commit(
    with_feed: Callable[[type[LiveFeed]], None], settings: Any, tmp_path: Path
) -> None:
    (tmp_path / "livefeed").mkdir()
    (tmp_path / "livefeed" / "broken.html").write_text("{% if %}")
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [tmp_path]}]

    class Broken(Rendered):
        name = "broken"

    with_feed(Broken)

    with pytest.raises(TemplateSyntaxError), transaction.atomic():
        Article.objects.create(title="Hello")
    assert not Article.objects.exists()
