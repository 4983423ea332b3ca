"""Declaring feeds, what they refuse, and the values they name. What becomes of changes: tests/test_receivers.py."""

from __future__ import annotations

import types
from collections import UserDict
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.db import transaction

from livefeed import LiveFeed, register
from livefeed.exceptions import FeedError, InvalidData, InvalidTopic
from livefeed.registry import Registry, registry
from livefeed.values import field_of, resolves

from .testapp.livefeeds import ArticleFeed, BuildFeed, NoteFeed, PlainFeed, TaskFeed
from .testapp.models import Article, Author, Headline, Note, Review, Tag, Task
from .writing import stored, told

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def feed() -> Iterator[Callable[..., type[LiveFeed]]]:
    """Declare and register a feed of articles for the time of one test."""
    added: list[type[LiveFeed]] = []

    def declare(**attributes: Any) -> type[LiveFeed]:
        attributes = {"model": Article, "name": "spare", "fields": ["title"], **attributes}
        cls = types.new_class("SpareFeed", (LiveFeed,), {}, lambda namespace: namespace.update(attributes))
        added.append(register(cls))
        return cls

    yield declare
    for cls in added:
        registry.remove(cls)


# -- names and owners -----------------------------------------------------------------------------------------------


def test_a_feed_is_named_after_its_model_if_it_has_no_other_name() -> None:
    assert ArticleFeed.name == "testapp.article"
    assert ArticleFeed().get_topics(Article(pk=1)) == ["testapp.article"]
    assert BuildFeed.name == "build"


def test_a_subclass_of_a_feed_is_named_after_its_own_model() -> None:
    class TagFeed(ArticleFeed):
        model = Tag

    class ThirdFeed(ArticleFeed):
        name = "third"

    assert (TagFeed.name, ThirdFeed.name) == ("testapp.tag", "third")


def test_a_feed_owns_its_name_and_the_keys_after_it() -> None:
    assert type(registry.owner("testapp.article")) is ArticleFeed
    assert type(registry.owner("testapp.article:7")) is ArticleFeed
    assert type(registry.owner("testapp.article:7:log")) is ArticleFeed
    assert type(registry.owner("build:42")) is BuildFeed
    for topic in ("testapp", "testapp.articles", "testapp.article.7", "unknown:7"):
        assert registry.owner(topic) is None


def test_autodiscovery_found_the_feeds_of_the_apps() -> None:
    assert {feed.name for feed in registry} >= {"testapp.article", "detail", "testapp.note", "build", "plain"}


def test_register_returns_the_class_as_it_is(feed: Callable[..., type[LiveFeed]]) -> None:
    cls = feed()
    assert issubclass(cls, LiveFeed)
    assert type(registry.owner("spare")) is cls


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (object(), "is not a LiveFeed. Use @register on a subclass"),
        (Article, "is not a LiveFeed"),
        (ArticleFeed(), "is not a LiveFeed"),
        (LiveFeed, "neither a model nor a name. Set one of them"),
        (type("Colon", (LiveFeed,), {"name": "a:b"}), "'a:b'. A feed's name has no colon"),
    ],
)
def test_what_can_t_be_a_feed_is_refused_with_the_value_and_the_cure(wrong: Any, message: str) -> None:
    with pytest.raises(FeedError) as caught:
        Registry().add(wrong)
    assert message in str(caught.value)


def test_a_feed_s_name_must_be_a_topic() -> None:
    with pytest.raises(InvalidTopic, match="two words"):
        Registry().add(type("Words", (LiveFeed,), {"name": "two words"}))


def test_of_two_feeds_with_one_name_the_first_stays_and_the_clash_is_kept_for_the_checks() -> None:
    mine = Registry()
    first, second = (type(name, (LiveFeed,), {"name": "build"}) for name in ("First", "Second"))
    mine.add(first)
    mine.add(second)
    assert type(mine.owner("build")) is first
    assert [type(clash) for clash in mine.clashes] == [second]
    assert len(list(mine)) == 1


def test_to_remove_a_feed_that_was_refused_leaves_the_one_that_has_the_name() -> None:
    mine = Registry()
    first, second = (type(name, (LiveFeed,), {"name": "build"}) for name in ("First", "Second"))
    mine.add(first)
    mine.add(second)
    mine.remove(second)
    assert type(mine.owner("build")) is first
    assert mine.clashes == []
    mine.remove(first)
    assert mine.owner("build") is None


def test_a_feed_that_is_removed_hears_nothing_more(feed: Callable[..., type[LiveFeed]]) -> None:
    cls = feed(fields=["title", "tags"])
    article = Article.objects.create(title="One")
    registry.remove(cls)
    article.save()
    article.tags.add(Tag.objects.create(name="a"))
    article.delete()
    assert [event.type for event in stored("spare")] == ["created"]


# -- topics and data ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        ("spare", FeedError, "get_topics() returned 'spare'. Return a list of topics"),
        (None, FeedError, "get_topics() returned None. Return a list of topics"),
        (17, FeedError, "get_topics() returned 17. Return a list of topics"),
        (["testapp.article"], FeedError, "returned 'testapp.article', which is not its own"),
        (["spares:7"], FeedError, 'which is not its own. Return "spare" or "spare:<key>"'),
        (["spare:two words"], InvalidTopic, "two words"),
        ([7], InvalidTopic, "7 is not a topic name"),
    ],
)
def test_topics_that_can_t_be_are_refused_before_anything_is_kept(
    feed: Callable[..., type[LiveFeed]], returned: Any, error: type[Exception], message: str
) -> None:
    feed(get_topics=lambda self, instance: returned)
    with pytest.raises(error) as caught, transaction.atomic():
        Article.objects.create(title="One")
    assert message in str(caught.value)
    assert not Article.objects.exists()
    assert stored("testapp.article") == []


def test_a_topic_that_is_named_twice_gets_the_event_once(feed: Callable[..., type[LiveFeed]]) -> None:
    feed(get_topics=lambda self, instance: ("spare", "spare:1", "spare"))
    Article.objects.create(title="One")
    assert len(stored("spare")) == len(stored("spare:1")) == 1


@pytest.mark.parametrize("returned", [None, "text", 7, ["title"], {"title"}])
def test_data_that_is_no_mapping_is_refused_with_the_value_and_the_cure(
    feed: Callable[..., type[LiveFeed]], returned: Any
) -> None:
    feed(get_data=lambda self, instance: returned)
    with pytest.raises(FeedError) as caught, transaction.atomic():
        Article.objects.create(title="One")
    assert f"get_data() returned {returned!r}. Return a dict" in str(caught.value)
    assert not Article.objects.exists()


def test_data_that_can_t_be_encoded_fails_the_save_before_the_commit(feed: Callable[..., type[LiveFeed]]) -> None:
    feed(get_data=lambda self, instance: {"thing": object()})
    with pytest.raises(InvalidData), transaction.atomic():
        Article.objects.create(title="One")
    assert not Article.objects.exists()
    assert stored("testapp.article") == []


def test_an_error_in_a_feed_s_hook_is_the_caller_s(feed: Callable[..., type[LiveFeed]]) -> None:
    def broken(self: LiveFeed, instance: Article) -> dict[str, Any]:
        raise ZeroDivisionError

    feed(get_data=broken)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        Article.objects.create(title="One")
    assert not Article.objects.exists()


def test_the_key_is_added_to_the_data_unless_the_feed_gives_one(feed: Callable[..., type[LiveFeed]]) -> None:
    feed(get_data=lambda self, instance: UserDict({"pk": f"article-{instance.pk}", "title": instance.title}))
    article = Article.objects.create(title="One")
    assert told("spare")[0][1] == {"pk": f"article-{article.pk}", "title": "One"}
    assert told("testapp.article")[0][1]["pk"] == article.pk


def test_a_hook_sees_what_the_database_holds_and_not_the_instance_in_hand(
    feed: Callable[..., type[LiveFeed]],
) -> None:
    feed(get_data=lambda self, instance: {"title": instance.title, "price": str(instance.price)})
    with transaction.atomic():
        Article.objects.create(title="One", price="1.5")
    Article.objects.create(title="Two", price="2.5")
    assert [data["price"] for _, data in told("spare")] == ["1.50", "2.50"]


def test_a_hook_that_reads_relations_is_told_of_their_changes(feed: Callable[..., type[LiveFeed]]) -> None:
    feed(get_data=lambda self, instance: {"tags": sorted(tag.name for tag in instance.tags.all())})
    article = Article.objects.create(title="One")
    article.tags.add(Tag.objects.create(name="a"))
    assert [data["tags"] for _, data in told("spare")] == [[], ["a"]]


def test_topics_by_relation_follow_the_relation(feed: Callable[..., type[LiveFeed]]) -> None:
    feed(get_topics=lambda self, instance: [f"spare:{tag.name}" for tag in instance.tags.order_by("name")])
    article = Article.objects.create(title="One")
    a, b = (Tag.objects.create(name=name) for name in "ab")
    article.tags.add(a)
    article.tags.set([b])
    article.tags.add(a)
    article.tags.clear()
    assert [event.type for event in stored("spare:b")] == ["created", "updated", "deleted"]
    assert [event.type for event in stored("spare:a")] == ["created", "deleted", "created", "deleted"]


def test_a_row_that_is_deleted_leaves_the_topics_of_its_relations(feed: Callable[..., type[LiveFeed]]) -> None:
    feed(get_topics=lambda self, instance: [f"spare:{tag.name}" for tag in instance.tags.all()])
    article = Article.objects.create(title="One")
    article.tags.add(Tag.objects.create(name="a"))
    article.delete()
    assert [event.type for event in stored("spare:a")] == ["created", "deleted"]


def test_friends_of_each_other_are_both_updated(feed: Callable[..., type[LiveFeed]]) -> None:
    feed(model=Author, fields=["friends"])
    ada, grace, alan = (Author.objects.create(name=name) for name in ("Ada", "Grace", "Alan"))

    def friends() -> dict[int, list[int]]:
        return {data["pk"]: data["friends"] for _, data in told("spare")}

    ada.friends.add(grace, alan)
    assert friends() == {ada.pk: [grace.pk, alan.pk], grace.pk: [ada.pk], alan.pk: [ada.pk]}
    grace.friends.remove(ada)
    assert friends() == {ada.pk: [alan.pk], grace.pk: [], alan.pk: [ada.pk]}
    ada.friends.clear()
    assert friends() == {ada.pk: [], grace.pk: [], alan.pk: []}


# -- fields ---------------------------------------------------------------------------------------------------------


def test_all_columns_have_to_be_asked_for() -> None:
    task = Task.objects.create(title="One")
    assert TaskFeed().data_of(task) == {"id": task.pk, "pk": task.pk, "title": "One"}
    assert LiveFeed().field_names == ()


def test_a_feed_without_fields_sends_nothing_but_the_key(feed: Callable[..., type[LiveFeed]]) -> None:
    feed(fields=[])
    article = Article.objects.create(title="One")
    assert told("spare") == [("created", {"pk": article.pk})]


def test_a_name_may_be_a_column_a_relation_s_key_a_path_a_property_or_a_method(
    feed: Callable[..., type[LiveFeed]],
) -> None:
    names = ["title", "author", "author_id", "author__name", "author__pk", "url", "pk", "get_absolute_title", "tags"]
    Article.get_absolute_title = lambda self: self.title.upper()  # type: ignore[attr-defined]
    try:
        feed(fields=names)
        author = Author.objects.create(name="Ada")
        article = Article.objects.create(title="One", author=author)
    finally:
        del Article.get_absolute_title  # type: ignore[attr-defined]
    assert told("spare")[0][1] == {
        "pk": article.pk,
        "title": "One",
        "author": author.pk,
        "author_id": author.pk,
        "author__name": "Ada",
        "author__pk": author.pk,
        "url": f"/articles/{article.pk}/",
        "get_absolute_title": "ONE",
        "tags": [],
    }


@pytest.mark.parametrize(
    ("name", "means"),
    [
        *((name, True) for name in ("title", "pk", "author_id", "author__name", "url", "tags")),
        *((name, False) for name in ("nothing", "author__nothing", "title__name", "tags__name", "")),
    ],
)
def test_whether_a_name_means_something_can_be_asked(name: str, means: bool) -> None:
    assert resolves(Article, name) is means


def test_the_other_side_of_a_relation_is_no_field_of_the_model() -> None:
    assert field_of(Tag, "articles") is None
    assert field_of(Article, "review") is None
    assert field_of(Review, "title") is not None
    assert field_of(Headline, "tags") is not None


# -- permissions and items ------------------------------------------------------------------------------------------


def test_a_feed_is_closed_unless_it_is_public_or_django_s_permission_opens_it() -> None:
    class ClosedFeed(LiveFeed):
        model = Tag

    class OpenFeed(LiveFeed):
        model = Tag
        public = True

    reader = User.objects.create(username="reader")
    permission = Permission.objects.get(codename="view_tag")
    for user in (AnonymousUser(), reader):
        assert not ClosedFeed().has_view_permission(user, "testapp.tag")
        assert OpenFeed().has_view_permission(user, "testapp.tag")
    reader.user_permissions.add(permission)
    reader = User.objects.get(pk=reader.pk)
    assert ClosedFeed().has_view_permission(reader, "testapp.tag")
    assert ClosedFeed().has_view_permission(User(username="root", is_superuser=True, is_active=True), "testapp.tag")


def test_a_feed_without_a_model_is_closed_unless_it_is_public() -> None:
    class SpareFeed(LiveFeed):
        name = "spare"

    assert not SpareFeed().has_view_permission(User(is_superuser=True, is_active=True), "spare")
    assert PlainFeed().has_view_permission(AnonymousUser(), "plain")


def test_a_widget_s_items_come_in_the_order_in_which_it_inserts_new_ones() -> None:
    first, second = (Article.objects.create(title=title) for title in ("One", "Two"))
    assert list(ArticleFeed().get_queryset("testapp.article")) == [second, first]
    tasks = [Task.objects.create(title=title) for title in ("One", "Two")]
    assert TaskFeed.insert == "append"
    assert list(TaskFeed().get_queryset("testapp.task")) == tasks
    assert NoteFeed().get_queryset("testapp.note:a").model is Note


@pytest.mark.parametrize(("cls", "topic"), [(ArticleFeed, "testapp.article:7"), (BuildFeed, "build")])
def test_a_feed_that_can_t_tell_its_items_says_what_to_override(cls: type[LiveFeed], topic: str) -> None:
    with pytest.raises(FeedError) as caught:
        cls().get_queryset(topic)
    assert repr(topic) in str(caught.value)
    assert "Override get_queryset(topic)" in str(caught.value)


def test_a_column_of_a_class_of_the_site_s_own_is_read_from_the_database() -> None:
    with transaction.atomic():
        article = Article.objects.create(title="One", price=Decimal("1"))
    assert told("detail")[0][1]["price"] == "1.00"
    assert article.price == Decimal("1")
