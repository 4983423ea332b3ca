"""The widget's markup and the template tags: what is shown to whom, escaped, and from which cursor on."""

from __future__ import annotations

import html as html_module
import json
import re
import time
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import django
import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.template import Context, RequestContext, Template
from django.test import AsyncClient, Client, RequestFactory
from django.utils.functional import SimpleLazyObject
from django.utils.module_loading import import_string

from livefeed import LiveFeed, create_token, html, links, listing, publish, snapshots
from livefeed.cursors import entry
from livefeed.exceptions import FeedError, HistoryUnavailable, InvalidTopic
from livefeed.history import acursor, cursor
from livefeed.resuming import NOWHERE
from livefeed.roster import Roster
from livefeed.testing import open_stream
from livefeed.topics import plain_name, signature_holds
from livefeed.viewers import Viewer
from tests.testapp.models import Article, Note, Task

pytest_plugins = ["tests.reading_fixtures"]

ARTICLES = "testapp.article"
#: This module as a URLconf: a site that forgot to include livefeed.urls.
urlpatterns: list[Any] = []


class Elements(HTMLParser):
    """The elements of a text, in order, each with its attributes and the text right inside it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self._inside: list[int] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside.append(len(self.found))
        self.found.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self.found[self._inside.pop()][0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._inside:
            tag, attributes, text = self.found[self._inside[-1]]
            self.found[self._inside[-1]] = (tag, attributes, text + data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes, _ in self.found if name == tag]

    def one(self, tag: str) -> dict[str, str | None]:
        (attributes,) = self.all(tag)
        return attributes

    def list(self) -> dict[str, str | None]:
        (attributes,) = [found for found in self.all("div") if "data-live-list" in found]
        return attributes

    def texts(self, tag: str) -> list[str]:
        return [text for name, _, text in self.found if name == tag]


def request_of(user: Any = None, session_key: str | None = None) -> HttpRequest:
    request = RequestFactory().get("/")
    request.user = user or AnonymousUser()
    if session_key:
        request.session = type("Session", (dict,), {"session_key": session_key})()
    return request


def render(source: str, request: HttpRequest | None = None, **context: Any) -> str:
    return Template("{% load livefeed %}" + source).render(RequestContext(request or request_of(), context))


# -- what is there ----------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_widget_has_all_that_its_script_reads() -> None:
    article = Article.objects.create(title="Hello", votes=3)
    elements = Elements(render('{% livefeed "testapp.article" %}'))
    feed = elements.one("live-feed")
    assert feed["src"] == "/livefeed/"
    assert plain_name(str(feed["topic"])) == ARTICLES
    assert feed["cursor"] == cursor(ARTICLES)
    assert (feed["limit"], feed["insert"]) == ("20", "prepend")
    assert (feed["viewer"], feed["order"]) == (Viewer(AnonymousUser(), None, "").digest, "-pk")
    assert not {"render", "worker"} & set(feed)
    assert feed["data-text-open"] == "Live"
    assert feed["data-text-new-one"] == "# new item"
    assert elements.one("p") == {"data-live-status": None, "hidden": None}
    assert [{**button, "type": None} for button in elements.all("button")] == [
        {"type": None, "data-live-pause": None, "hidden": None},
        {"type": None, "data-live-new": None, "hidden": None},
    ]
    assert elements.list() == {"data-live-list": None, "role": "feed", "aria-label": "articles"}
    assert [item["data-key"] for item in elements.all("article")] == [str(article.pk), ""]
    assert [item.get("data-order") for item in elements.all("article")] == [f"[{article.pk}]", None]
    assert [span["data-field"] for span in elements.all("span")] == ["title", "votes"] * 2
    assert elements.texts("span") == ["Hello", "3", "", ""]


@pytest.mark.django_db
def test_the_tag_takes_limit_insert_and_label() -> None:
    Article.objects.bulk_create([Article(title=f"Number {n}") for n in range(9)])
    elements = Elements(render('{% livefeed topic limit=3 insert="append" label=label %}', topic=ARTICLES, label="<A>"))
    feed = elements.one("live-feed")
    assert (feed["limit"], feed["insert"]) == ("3", "append")
    assert (elements.list()["role"], elements.list()["aria-label"]) == ("log", "<A>")
    assert elements.texts("span")[:6:2] == ["Number 6", "Number 7", "Number 8"]


@pytest.mark.django_db
def test_new_items_are_shown_first_where_new_ones_come_in_first() -> None:
    Article.objects.bulk_create([Article(title=f"Number {n}") for n in range(25)])
    titles = Elements(render('{% livefeed "testapp.article" %}')).texts("span")[::2]
    assert titles == [f"Number {n}" for n in range(24, 4, -1)] + [""]


@pytest.mark.django_db
def test_an_appending_feed_shows_its_newest_items_with_the_newest_last() -> None:
    Task.objects.bulk_create([Task(title=f"Number {n}") for n in range(25)])
    request = request_of(User.objects.create_superuser("root"))
    elements = Elements(render('{% livefeed "testapp.task" %}', request))
    titles = [text for text in elements.texts("span") if text.startswith("Number")]
    assert titles == [f"Number {n}" for n in range(5, 25)]
    snapshot = Elements(snapshots.snapshot("testapp.task", None))
    assert [text for text in snapshot.texts("span") if text.startswith("Number")] == titles


@pytest.mark.django_db
def test_a_snapshot_shows_its_items_as_the_widget_does() -> None:
    Article.objects.bulk_create([Article(title=f"Number {n}") for n in range(3)])
    widget, snapshot = render('{% livefeed "testapp.article" %}'), snapshots.snapshot(ARTICLES, None)
    items = re.findall(r"<article .*?</article>", widget, re.DOTALL)[:-1]
    assert len(items) == 3
    assert re.findall(r"<article .*?</article>", snapshot, re.DOTALL) == items


@pytest.mark.django_db
def test_values_are_escaped_wherever_they_stand() -> None:
    evil = "\"'><script>alert(1)</script>&amp;"
    Article.objects.create(title=evil)
    text = render('{% livefeed "testapp.article" label=evil %}', evil=evil)
    assert "<script" not in text
    elements = Elements(text)
    assert elements.texts("span")[0] == evil
    assert elements.list()["aria-label"] == evil
    assert "<script" not in snapshots.snapshot(ARTICLES, None)


@pytest.mark.django_db
def test_the_values_of_items_are_those_of_events(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    class Dated(LiveFeed):
        model = Article
        name = "dated"
        fields = ["price", "published_on", "author__name", "url"]
        public = True

    with_feed(Dated)
    article = Article.objects.create(price="1.50", published_on="2030-01-02")
    elements = Elements(render('{% livefeed "dated" %}'))
    assert elements.texts("span")[:4] == ["1.50", "2030-01-02", "", f"/articles/{article.pk}/"]


@pytest.mark.django_db
def test_the_blank_template_is_an_item_without_values() -> None:
    Article.objects.create(title="Hello")
    text = render('{% livefeed "testapp.article" %}')
    (blank,) = re.findall(r"<template>(.*?)</template>", text, re.DOTALL)
    (item,) = re.findall(r"<article .*?</article>", text.partition("<template>")[0], re.DOTALL)
    assert "Hello" not in blank
    emptied = re.sub(r'data-key="\d+" data-order="\[\d+\]"', 'data-key=""', re.sub(r">[^<>]+</span", "></span", item))
    assert blank.strip() == emptied


@pytest.mark.django_db
def test_an_empty_list_has_a_template_too() -> None:
    elements = Elements(render('{% livefeed "testapp.article" %}'))
    assert [item["data-key"] for item in elements.all("article")] == [""]
    assert [span["data-field"] for span in elements.all("span")] == ["title", "votes"]


@pytest.mark.django_db
def test_a_site_s_own_template_makes_the_items(settings: Any, tmp_path: Any) -> None:
    own = tmp_path / "livefeed" / "testapp"
    own.mkdir(parents=True)
    (own / "article.html").write_text('<li data-key="{{ key }}">{{ feed.name }} {{ topic }} {{ item.title }}</li>')
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [tmp_path]}]
    article = Article.objects.create(title="<Hello>")
    text = render('{% livefeed "testapp.article" %}')
    assert f'<li data-key="{article.pk}">{ARTICLES} {ARTICLES} &lt;Hello&gt;</li>' in text
    assert f'<template><li data-key="">{ARTICLES} {ARTICLES} </li></template>' in text


@pytest.mark.django_db
def test_a_topic_with_a_key_shows_the_items_that_get_queryset_names() -> None:
    Note.objects.create(board="open", text="here")
    Note.objects.create(board="other", text="there")
    text = render('{% livefeed "testapp.note:open" %}')
    assert "here" in text
    assert "there" not in text


@pytest.mark.django_db
def test_the_script_tag_loads_one_module_and_one_sheet_from_the_site_itself() -> None:
    elements = Elements(render("{% livefeed_script %}"))
    assert elements.one("script") == {"type": "module", "src": "/static/livefeed/livefeed.js"}
    assert elements.one("link") == {"rel": "stylesheet", "href": "/static/livefeed/livefeed.css"}


@pytest.mark.parametrize("source", ["{% livefeed_script %}", "{% livefeed_script nonce=request.csp_nonce %}"])
def test_where_the_policy_goes_by_nonces_script_and_sheet_have_the_response_s(source: str, settings: Any) -> None:
    request = request_of()
    if django.VERSION >= (6,):
        get_response = import_string("django.middleware.csp.ContentSecurityPolicyMiddleware")
        get_response(lambda request: HttpResponse()).process_request(request)
        nonce = import_string("django.middleware.csp.get_nonce")(request)
        assert not nonce, "it is lazy"
    else:
        nonce = SimpleLazyObject(lambda: "n0nce")
    request.csp_nonce = nonce
    context = {} if "request" in source else {"csp_nonce": nonce}
    elements = Elements(render(source, request, **context))
    assert elements.one("script")["nonce"] == elements.one("link")["nonce"] == str(nonce)
    assert "nonce" not in render("{% livefeed_script %}", request, csp_nonce=None)


@pytest.mark.django_db
def test_nothing_in_the_markup_is_against_a_strict_content_security_policy() -> None:
    Article.objects.create(title="Hello")
    text = render('{% livefeed_script %}{% livefeed "testapp.article" %}')
    for _, attributes, _ in Elements(text).found:
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
    assert re.findall(r"<script[^>]*>(.*?)</script>", text) == [""]


# -- for whom ---------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_nothing_is_rendered_for_who_may_not_read() -> None:
    assert render('{% livefeed "testapp.review" %}') == ""
    assert render('{% livefeed "testapp.review" %}', request_of(User.objects.create_user("ann"))) == ""
    assert "<live-feed" in render('{% livefeed "testapp.review" %}', request_of(User.objects.create_superuser("root")))


@pytest.mark.django_db
def test_what_is_not_rendered_is_not_read_either(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert render('{% livefeed "testapp.review" %}') == ""


@pytest.mark.django_db
def test_the_name_in_the_page_is_signed_for_its_viewer_and_expires(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LIVEFEED_SIGNATURE_SECONDS = 60.0
    ann = User.objects.create_user("ann")
    of_user = str(Elements(render('{% livefeed "testapp.article" %}', request_of(ann))).one("live-feed")["topic"])
    of_session = str(
        Elements(render('{% livefeed "testapp.article" %}', request_of(None, "s1"))).one("live-feed")["topic"]
    )
    viewers = [f"user:{ann.pk}", f"user:{ann.pk + 1}", "session:s1", "session:s2", "anonymous"]
    assert [viewer for viewer in viewers if signature_holds(of_user, viewer)] == [f"user:{ann.pk}"]
    assert [viewer for viewer in viewers if signature_holds(of_session, viewer)] == ["session:s1"]
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 65)
    assert [viewer for viewer in viewers if signature_holds(of_user, viewer)] == []


@pytest.mark.django_db
def test_the_cursor_tag_tells_nothing_about_topics_that_the_viewer_may_not_read() -> None:
    assert render('{% livefeed_cursor "testapp.review" %}') == ""
    assert render('{% livefeed_cursor "testapp.review" "plain" %}') == cursor("plain")
    root = request_of(User.objects.create_superuser("root"))
    assert render('{% livefeed_cursor "testapp.review" "plain" %}', root) == cursor("testapp.review", "plain")


# -- mistakes of the site ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ('{% livefeed "nobody.knows" %}', FeedError, "nobody.knows"),
        ('{% livefeed "a b" %}', InvalidTopic, "a b"),
        ('{% livefeed "" %}', InvalidTopic, "topic"),
        ('{% livefeed "testapp.article~1~x" %}', InvalidTopic, "signed"),
        ('{% livefeed "plain" %}', FeedError, "get_queryset"),
        ('{% livefeed "testapp.article:7" %}', FeedError, "get_queryset"),
        ('{% livefeed "testapp.article" insert="above" %}', FeedError, "above"),
        ('{% livefeed_cursor "a b" %}', InvalidTopic, "a b"),
    ],
)
@pytest.mark.django_db
def test_a_mistake_in_a_template_says_what_to_write(source: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        render(source)


def test_a_template_without_a_request_says_how_to_render_it() -> None:
    with pytest.raises(ImproperlyConfigured, match="request"):
        Template('{% load livefeed %}{% livefeed "testapp.article" %}').render(Context())


@pytest.mark.urls("tests.test_html")
@pytest.mark.django_db
def test_a_site_without_the_urls_is_told() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"livefeed\.urls"):
        render('{% livefeed "testapp.article" %}')


# -- the cursor is older than the items -------------------------------------------------------------------------------


async def test_what_is_written_while_a_page_is_made_is_replayed(
    roster: Roster, async_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An article is saved between the cursor and the items: the page shows it, and the stream brings it again."""
    taken = links.cursor

    def cursor_and_then_a_writer(*topics: str) -> str:
        found = taken(*topics)
        Article.objects.create(title="In between")
        return found

    monkeypatch.setattr(links, "cursor", cursor_and_then_a_writer)
    page = (await async_client.get("/page/", {"topic": ARTICLES})).text
    assert "In between" in page
    feed = Elements(page).one("live-feed")
    async with open_stream(str(feed["topic"]), cursor=str(feed["cursor"])) as stream:
        opening, event = await stream.take(2)
    assert opening.json["resumed"] is True
    assert (event.type, event.json["title"]) == ("created", "In between")


async def test_what_is_written_after_the_items_were_read_is_replayed(roster: Roster, async_client: AsyncClient) -> None:
    page = (await async_client.get("/page/", {"topic": ARTICLES})).text
    await Article.objects.acreate(title="Later")
    feed = Elements(page).one("live-feed")
    async with open_stream(str(feed["topic"]), cursor=str(feed["cursor"])) as stream:
        _, event = await stream.take(2)
    assert (event.type, event.json["title"]) == ("created", "Later")


async def test_a_snapshot_s_cursor_is_older_than_its_items(
    roster: Roster, async_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = snapshots.cursor

    def cursor_and_then_a_writer(*topics: str) -> str:
        found = taken(*topics)
        Article.objects.create(title="In between")
        return found

    before = await acursor(ARTICLES)
    monkeypatch.setattr(snapshots, "cursor", cursor_and_then_a_writer)
    response = await async_client.get("/livefeed/", {"topic": ARTICLES}, headers={"accept": "text/html"})
    assert Elements(response.text).one("div")["data-cursor"] == before
    assert "In between" in response.text


async def test_a_page_s_signed_name_opens_its_stream(roster: Roster) -> None:
    user = await User.objects.acreate_superuser("root")
    client = AsyncClient()
    await client.aforce_login(user)
    page = (await client.get("/page/", {"topic": "testapp.review"})).text
    name = str(Elements(page).one("live-feed")["topic"])
    async with open_stream(name, user=user) as stream:
        assert (await stream.next()).json["topics"] == ["testapp.review"]
    async with open_stream(name) as stream:
        assert stream.status == 404


@pytest.mark.django_db(transaction=True)
def test_the_page_reads_without_javascript(client: Client) -> None:
    Article.objects.create(title="Hello")
    assert "Hello" in html_module.unescape(client.get("/page/", {"topic": ARTICLES}).text)


# -- {% livefeed_url %} -----------------------------------------------------------------------------------------------


def url_in(browser: Client, *topics: str) -> str:
    """Return what a page's tag writes for whoever browses."""
    response = browser.get("/url/", {"topic": topics})
    return html_module.unescape(response.content.decode())


def status_of(browser: Client, url: str) -> int:
    status: int = browser.get(url, headers={"accept": "application/json"}).status_code
    return status


@pytest.mark.django_db
def test_a_url_opens_topics_that_no_feed_owns_to_whom_the_page_was_for_and_to_nobody_else() -> None:
    ann, bob, anonymous = Client(), Client(), Client()
    ann.force_login(User.objects.create_user("ann"))
    bob.force_login(User.objects.create_user("bob"))
    url = url_in(ann, "unowned:1", "unowned:2")
    assert [status_of(browser, url) for browser in (ann, bob, anonymous)] == [200, 404, 404]
    page = ann.get(url, headers={"accept": "application/json"}).json()
    assert (page["topics"], page["refused"]) == (["unowned:1", "unowned:2"], [])


@pytest.mark.django_db
def test_a_url_for_somebody_who_is_not_signed_in_holds_for_their_session() -> None:
    browser, other = Client(), Client()
    url, another = url_in(browser, "unowned:1", "unowned:2"), url_in(other, "unowned:1")
    assert [status_of(browser, url), status_of(other, another)] == [200, 200]
    assert [status_of(other, url), status_of(browser, another), status_of(Client(), url)] == [404, 404, 404]
    browser.session.flush()
    assert status_of(browser, url) == 404


@pytest.mark.django_db
def test_a_url_of_open_topics_begins_no_session_and_leaves_out_what_is_closed() -> None:
    browser = Client()
    url = url_in(browser, "plain", "testapp.review")
    assert "sessionid" not in browser.cookies
    assert url.startswith("/livefeed/?topic=plain&since=")
    assert status_of(browser, url) == 200
    assert url_in(browser, "testapp.review") == ""


@pytest.mark.django_db(transaction=True)
def test_a_url_leads_to_all_that_came_since_the_page_was_rendered() -> None:
    browser = Client()
    url = url_in(browser, "unowned", "plain")
    publish("unowned", {"n": 1})
    publish("plain", {"n": 2})
    page = browser.get(url, headers={"accept": "application/json"}).json()
    assert [event["data"] for event in page["events"]] == [{"n": 1}, {"n": 2}]


@pytest.mark.django_db
def test_a_url_is_escaped_where_it_is_written() -> None:
    text = Client().get("/url/", {"topic": ["plain", "plain:1"]}).content.decode()
    assert "&amp;since=" in text
    assert "&since=" not in text


def test_without_sessions_nothing_is_signed_for_somebody_who_is_not_signed_in(rf: RequestFactory) -> None:
    with pytest.raises(ImproperlyConfigured, match="SessionMiddleware"):
        links.signed_url(rf.get("/"), ["unowned"])


@pytest.mark.django_db
def test_where_a_new_session_has_no_key_nothing_is_signed_for_somebody_who_is_not_signed_in(settings: Any) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    with pytest.raises(ImproperlyConfigured, match="signed_cookies"):
        url_in(Client(), "unowned")


def test_a_url_of_a_name_that_is_none_is_refused(rf: RequestFactory) -> None:
    with pytest.raises(InvalidTopic):
        links.signed_url(rf.get("/"), ["no topic"])


@pytest.mark.django_db
def test_a_page_shows_no_more_than_the_token_that_asked_for_it_opens(rf: RequestFactory) -> None:
    ann = User.objects.create_user("ann")
    for topic, shown in ((ARTICLES, True), ("plain", False)):
        token = create_token(ann, [topic], max_age=60)
        request = rf.get("/", headers={"authorization": f"Bearer {token}"})
        assert bool(html.live_feed(request, ARTICLES)) is shown
        assert ("testapp.article" in links.signed_url(request, [ARTICLES])) is shown


@pytest.mark.django_db
@pytest.mark.parametrize("key", ["word", "9" * 40, "-1", "1.5"])
def test_a_key_that_no_row_can_have_has_no_items(
    with_feed: Callable[[type[LiveFeed]], None], client: Client, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Chapters(LiveFeed):
        model = Article
        name = "chapters"
        fields = ["title"]
        public = True

        def get_queryset(self, topic: str) -> Any:
            return Article.objects.filter(pk=topic.partition(":")[2]).order_by("-pk")

    with_feed(Chapters)
    response = client.get("/livefeed/", {"topic": f"chapters:{key}"}, headers={"accept": "text/html"})
    assert response.status_code == 200
    assert "data-key" not in response.text


@pytest.mark.django_db
def test_a_hook_that_fails_for_the_feed_s_own_topic_is_the_site_s_to_mend(
    with_feed: Callable[[type[LiveFeed]], None], rf: RequestFactory
) -> None:
    class Broken(LiveFeed):
        model = Article
        name = "broken"
        fields = ["title"]
        public = True

        def get_queryset(self, topic: str) -> Any:
            raise ValueError("oops")

    with_feed(Broken)
    with pytest.raises(ValueError, match="oops"):
        html.live_feed(rf.get("/"), "broken")


# -- values, counters, messages ---------------------------------------------------------------------------------------

BUILD = '{% livefeed_value "build:42" %}<b data-field="percent">–</b>{% endlivefeed_value %}'


@pytest.mark.django_db(transaction=True)
def test_a_value_shows_the_newest_event_around_what_the_author_wrote() -> None:
    publish("unowned:42", {"percent": 60})
    publish("unowned:42", {"percent": 70, "by": "<i>"}, type="progress")
    request = request_of(User.objects.create_user("ann"))
    text = render(BUILD.replace("build", "unowned"), request)
    value = Elements(text).one("live-value")
    assert json.loads(str(value["value"])) == {"percent": 70, "by": "<i>"}
    assert value["cursor"] == cursor("unowned:42")
    assert signature_holds(str(value["topic"]), f"user:{request.user.pk}")
    assert {"key", "worker"} & set(value) == set()
    assert text.endswith('><b data-field="percent">–</b></live-value>')


@pytest.mark.django_db
def test_a_value_without_an_event_has_none_yet() -> None:
    value = Elements(render(BUILD.replace("build", "unowned"), request_of(User(pk=7)))).one("live-value")
    assert "value" not in value
    assert value["cursor"] == cursor("unowned:42")


@pytest.mark.django_db
def test_a_value_may_be_one_object_of_a_feed_s_topic() -> None:
    article, other = Article.objects.create(title="Mine", votes=3), Article.objects.create(title="Other")
    source = '{% livefeed_value "testapp.article" key=key %}<b data-field="votes"></b>{% endlivefeed_value %}'
    value = Elements(render(source, key=article.pk)).one("live-value")
    assert json.loads(str(value["value"])) == {"pk": article.pk, "title": "Mine", "votes": 3}
    assert value["key"] == str(article.pk)
    other.delete()
    assert "value" not in Elements(render(source, key=other.pk or 99)).one("live-value")
    assert "value" not in Elements(render(source, key="no number")).one("live-value")


@pytest.mark.django_db
def test_a_page_that_read_its_own_data_hands_in_its_cursor(django_assert_num_queries: Any) -> None:
    source = '{% livefeed_value "testapp.article" cursor="abcd" %}7{% endlivefeed_value %}'
    with django_assert_num_queries(0):
        value = Elements(render(source)).one("live-value")
    assert (value["cursor"], value.get("value")) == ("abcd", None)


@pytest.mark.django_db(transaction=True)
def test_a_value_costs_three_queries(django_assert_num_queries: Any) -> None:
    publish("testapp.article", {"n": 1})
    with django_assert_num_queries(3):  # the topic's end, and a page of one event: the end again, and the event
        render('{% livefeed_value "testapp.article" %}{% endlivefeed_value %}')


@pytest.mark.django_db
def test_a_counter_counts_the_items_of_its_topic() -> None:
    Article.objects.bulk_create([Article() for _ in range(1234)])
    elements = Elements(render('{% livefeed_count "testapp.article" %}'))
    counter = elements.one("live-counter")
    assert (counter["value"], elements.texts("live-counter")) == ("1234", ["1234"])
    assert (plain_name(str(counter["topic"])), counter["cursor"]) == (ARTICLES, cursor(ARTICLES))


@pytest.mark.django_db
def test_messages_have_a_template_or_none_and_begin_with_what_comes_next() -> None:
    options, message = 'limit=2 seconds=0.5 label="<A>"', '<b data-field="text"></b>'
    source = f'{{% livefeed_toasts "unowned" {options} %}}{message}{{% endlivefeed_toasts %}}'
    publish("unowned", {"text": "before"})
    text = render(source, request_of(User(pk=7)))
    elements = Elements(text)
    toasts = elements.one("live-toasts")
    assert (toasts["limit"], toasts["seconds"], toasts["cursor"]) == ("2", "0.5", cursor("unowned"))
    assert elements.one("button")["aria-label"] == "Dismiss"
    assert elements.list() == {"data-live-list": None, "role": "status", "aria-atomic": "false", "aria-label": "<A>"}
    assert '<template><div data-live-toast><b data-field="text"></b><button' in text
    bare = render('{% livefeed_toasts "unowned" %} {% endlivefeed_toasts %}', request_of(User(pk=7)))
    assert '<template><div data-live-toast><span data-field="text"></span><button' in bare
    assert (Elements(bare).one("live-toasts")["limit"], Elements(bare).one("live-toasts")["seconds"]) == ("3", "8")


@pytest.mark.parametrize(
    "source",
    [
        '{% livefeed_value "testapp.review" %}<b>secret</b>{% endlivefeed_value %}',
        '{% livefeed_count "testapp.review" %}',
        '{% livefeed_toasts "testapp.review" %}<b>secret</b>{% endlivefeed_toasts %}',
    ],
)
@pytest.mark.django_db
def test_no_element_is_rendered_for_who_may_not_read(source: str) -> None:
    assert render(source) == ""
    assert "<live-" in render(source, request_of(User.objects.create_superuser("root")))


@pytest.mark.django_db
def test_a_guest_s_session_begins_with_a_signed_name_and_the_viewer_stays_the_same(client: Client) -> None:
    """So that a list and a value on one page share their connection, also on a guest's very first page."""
    request = RequestFactory().get("/")
    request.user, request.session = AnonymousUser(), client.session
    elements = Elements(render('{% livefeed "testapp.article" %}' + BUILD.replace("build", "unowned"), request))
    assert elements.one("live-feed")["viewer"] == elements.one("live-value")["viewer"]
    assert signature_holds(str(elements.one("live-value")["topic"]), f"session:{request.session.session_key}")


@pytest.mark.django_db(transaction=True)
def test_the_newest_event_that_a_viewer_may_see_is_the_value(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    class Mine(LiveFeed):
        name = "mine"
        public = True

        def get_data_for(self, user: Any, event: Any) -> Any:
            return event.data if event.data["for"] == user.username else None

    with_feed(Mine)
    for n in range(3):
        publish("mine", {"for": "ann", "n": n})
    publish("mine", {"for": "bob", "n": 9})
    source = '{% livefeed_value "mine" %}{% endlivefeed_value %}'
    ann, bob, eve = (request_of(User(pk=n, username=name)) for n, name in enumerate(["ann", "bob", "eve"], 1))
    assert json.loads(str(Elements(render(source, ann)).one("live-value")["value"]))["n"] == 2
    assert json.loads(str(Elements(render(source, bob)).one("live-value")["value"]))["n"] == 9
    assert "value" not in Elements(render(source, eve)).one("live-value")


@pytest.mark.django_db
def test_where_the_history_is_away_a_value_comes_by_a_snapshot_later(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away:
        def heads(self, topics: Any) -> Any:
            raise HistoryUnavailable("gone")

    monkeypatch.setattr("livefeed.listing.get_history", Away)
    value = Elements(render('{% livefeed_value "testapp.article" %}–{% endlivefeed_value %}')).one("live-value")
    assert value["cursor"] == entry(ARTICLES, NOWHERE)
    assert "value" not in value


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ('{% livefeed "testapp.article" limit="many" %}', FeedError, "limit is 'many'"),
        ('{% livefeed "testapp.article" insert="perhaps" %}', FeedError, '"prepend" or "append"'),
        ('{% livefeed_value "unowned" key=5 %}{% endlivefeed_value %}', FeedError, "No feed owns"),
        ('{% livefeed_value "testapp.article" key="" %}{% endlivefeed_value %}', FeedError, "is empty"),
        ('{% livefeed_value "testapp.article:7" key=5 %}{% endlivefeed_value %}', FeedError, "get_queryset"),
        ('{% livefeed_value "a~b" %}{% endlivefeed_value %}', InvalidTopic, "signed"),
        ('{% livefeed_count "unowned" %}', FeedError, "No feed owns"),
        ('{% livefeed_count "plain" %}', FeedError, "get_queryset"),
        ('{% livefeed_toasts "plain" limit=0 %}{% endlivefeed_toasts %}', FeedError, "limit is 0"),
        ('{% livefeed_toasts "plain" seconds="5" %}{% endlivefeed_toasts %}', FeedError, "seconds is '5'"),
        ('{% livefeed_toasts "a b" %}{% endlivefeed_toasts %}', InvalidTopic, "a b"),
    ],
)
@pytest.mark.django_db
def test_a_mistake_in_any_tag_says_what_to_write(source: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        render(source)


@pytest.mark.django_db
def test_items_that_viewers_see_differently_are_not_counted(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    class Each(LiveFeed):
        model = Article
        name = "each"
        fields = ["title"]
        public = True

        def get_data_for(self, user: Any, event: Any) -> Any:
            return event.data

    with_feed(Each)
    with pytest.raises(FeedError, match="can't be counted"):
        render('{% livefeed_count "each" %}')


@pytest.mark.django_db
def test_where_the_tag_turns_the_list_around_its_order_turns_too() -> None:
    text = render('{% livefeed "testapp.article" insert="append" %}')
    assert Elements(text).one("live-feed")["order"] == "pk"


@pytest.mark.django_db
def test_static_files_on_another_origin_are_no_place_for_a_worker(settings: Any) -> None:
    settings.STATIC_URL = "https://static.example.com/"
    text = render('{% livefeed "testapp.article" %}{% livefeed_count "testapp.article" %}')
    for tag in ("live-feed", "live-counter"):
        assert str(Elements(text).one(tag)["worker"]).startswith("/livefeed/livefeed.js?v=")


@pytest.mark.django_db(transaction=True)
def test_what_comes_while_items_are_counted_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, late = listing.counted, iter(["one", "another"])

    def count_with_late_comers(feed: LiveFeed, topic: str) -> int:
        if title := next(late, ""):
            Article.objects.create(title=title)
        return counted(feed, topic)

    monkeypatch.setattr(listing, "counted", count_with_late_comers)
    counter = Elements(render('{% livefeed_count "testapp.article" %}')).one("live-counter")
    assert (counter["value"], counter["cursor"]) == ("2", cursor(ARTICLES))
