"""What becomes of a model's changes: in autocommit and in transactions, on whatever way they are made."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import DatabaseError, connection, connections, transaction
from django.db.models import F, Value
from django.db.models.functions import Concat
from django.test import AsyncClient, Client

from livefeed import LiveFeed
from livefeed.events import Stretch
from livefeed.registry import registry
from livefeed.testing import capture_events

from .testapp.models import Article, Author, Elsewhere, Headline, Note, Review, Tag, Task
from .writing import at_once, in_thread, interrupted, look, rolled_back, statements, stored, told

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

ARTICLE, DETAIL, REVIEW, TASK = "testapp.article", "detail", "testapp.review", "testapp.task"

Mode = Callable[[], AbstractContextManager[Any]]


@pytest.fixture(params=["autocommit", "atomic"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """Make changes as they come, or in a transaction."""
    return nullcontext if request.param == "autocommit" else transaction.atomic


@pytest.fixture
def article() -> Article:
    return Article.objects.create(title="One", votes=1)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Stretch]:
    """What is handed to the broker."""
    stretches: list[Stretch] = []
    monkeypatch.setattr("livefeed.broker.send", stretches.append)
    return stretches


@pytest.fixture
def feed() -> Iterator[Callable[[type[LiveFeed]], None]]:
    """Register feeds for the time of one test."""
    added: list[type[LiveFeed]] = []

    def add(cls: type[LiveFeed]) -> None:
        registry.add(cls)
        added.append(cls)

    yield add
    for cls in added:
        registry.remove(cls)


def types(topic: str) -> list[str]:
    return [type for type, _ in told(topic)]


def last(topic: str) -> tuple[str, Any]:
    return told(topic)[-1]


# -- created, updated, deleted --------------------------------------------------------------------------------------


def test_saves_and_deletions_become_events_with_flat_data_and_the_key(mode: Mode) -> None:
    with mode():
        article = Article.objects.create(title="One", votes=1)
        article.title = "Two"
        article.save()
        pk = article.pk
        article.delete()
    assert told(ARTICLE) == [
        ("created", {"pk": pk, "title": "One", "votes": 1}),
        ("updated", {"pk": pk, "title": "Two", "votes": 1}),
        ("deleted", {"pk": pk}),
    ]
    assert types(DETAIL) == ["created", "updated", "deleted"]


def test_nothing_leaves_the_server_that_is_not_named(mode: Mode) -> None:
    with mode():
        Article.objects.create(title="One", secret="keep this").delete()
    for topic in (ARTICLE, DETAIL):
        assert "keep this" not in json.dumps([data for _, data in told(topic)])
        assert all("secret" not in data for _, data in told(topic))


def test_a_change_in_a_transaction_is_seen_after_the_commit_only(sent: list[Stretch]) -> None:
    with transaction.atomic():
        article = Article.objects.create(title="One")
        article.save()
        assert (stored(ARTICLE), sent) == ([], [])
    assert types(ARTICLE) == ["created", "updated"]
    assert sent


def test_changes_that_are_rolled_back_are_never_seen(article: Article, sent: list[Stretch]) -> None:
    tag = Tag.objects.create(name="a")
    assert types(ARTICLE) == ["created"]
    sent.clear()
    with rolled_back():
        Article.objects.create(title="phantom")
        article.save()
        article.tags.add(tag)
        Article.objects.get(pk=article.pk).delete()
    with transaction.atomic(), rolled_back():
        article.save()
    assert types(ARTICLE) == types(DETAIL) == ["created"]
    assert sent == []


def test_a_rolled_back_savepoint_takes_its_changes_with_it_and_no_others(article: Article) -> None:
    with transaction.atomic():
        with rolled_back():
            article.title = "phantom"
            article.save()
        article.title = "real"
        article.save()
    assert [data["title"] for _, data in told(ARTICLE)] == ["One", "real"]


def test_a_save_that_fails_publishes_nothing(article: Article, mode: Mode) -> None:
    def fail() -> None:
        with mode():
            Article(pk=article.pk, title="twin").save(force_insert=True)

    with pytest.raises(DatabaseError):
        fail()
    assert types(ARTICLE) == ["created"]


def test_saving_no_fields_publishes_nothing(article: Article) -> None:
    article.save(update_fields=[])
    assert types(ARTICLE) == ["created"]


# -- what is published is what the database holds -------------------------------------------------------------------


def test_a_save_of_some_fields_publishes_what_the_database_holds_of_the_others(article: Article, mode: Mode) -> None:
    stale = Article.objects.get(pk=article.pk)
    article.title = "Two"
    article.save()
    stale.votes = 7
    with mode():
        stale.save(update_fields=["votes"])
    assert last(ARTICLE) == ("updated", {"pk": article.pk, "title": "Two", "votes": 7})
    assert last(DETAIL)[1]["title"] == "Two"


def test_an_expression_is_published_as_its_value(article: Article, mode: Mode) -> None:
    article.votes = F("votes") + 41
    article.title = Concat(F("title"), Value("!"))
    with mode():
        article.save()
    assert last(ARTICLE) == ("updated", {"pk": article.pk, "title": "One!", "votes": 42})


def test_values_are_published_as_the_database_returns_them(mode: Mode) -> None:
    with mode():
        Article.objects.create(title=17, votes="3", price="1.5", published_on="2025-01-02")
    (_, data) = last(DETAIL)
    assert (data["title"], data["votes"], data["price"], data["published_on"]) == ("17", 3, "1.50", "2025-01-02")
    assert last(ARTICLE)[1] == {"pk": data["pk"], "title": "17", "votes": 3}


def test_a_decimal_is_published_as_it_was_rounded(mode: Mode) -> None:
    with mode():
        Article.objects.create(title="One", price=Decimal("2"), published_on=datetime.date(2025, 1, 2))
    (_, data) = last(DETAIL)
    assert (data["price"], data["published_on"]) == ("2.00", "2025-01-02")


def test_an_instance_with_deferred_fields_is_published_whole(article: Article, mode: Mode) -> None:
    deferred = Article.objects.only("votes").get(pk=article.pk)
    deferred.votes = 9
    with mode():
        deferred.save()
    assert last(ARTICLE) == ("updated", {"pk": article.pk, "title": "One", "votes": 9})


def test_a_related_path_is_read_anew_and_not_from_what_the_instance_remembers(mode: Mode) -> None:
    author = Author.objects.create(name="Ada")
    article = Article.objects.create(title="One", author=author)
    Author.objects.filter(pk=author.pk).update(name="Grace")
    assert article.author.name == "Ada"
    with mode():
        article.save()
    assert [data["author__name"] for _, data in told(DETAIL)] == ["Ada", "Grace"]


def test_a_related_path_over_nothing_is_null(article: Article) -> None:
    assert last(DETAIL)[1]["author__name"] is None


def test_a_property_is_published(article: Article) -> None:
    assert last(DETAIL)[1]["url"] == f"/articles/{article.pk}/"


def test_an_instance_made_by_hand_publishes_the_row_that_it_overwrote(article: Article, mode: Mode) -> None:
    with mode():
        Article(pk=article.pk, title="Overwritten").save()
    assert last(ARTICLE) == ("updated", {"pk": article.pk, "title": "Overwritten", "votes": 0})


def test_an_instance_that_can_t_differ_from_its_row_is_not_read_again_in_a_transaction() -> None:
    with transaction.atomic(), statements("SELECT", '"testapp_task"') as reads:
        task = Task.objects.create(title="One")
        task.save()
    assert reads == []
    assert types(TASK) == ["created", "updated"]


def test_several_saves_in_one_transaction_are_several_events_in_order(article: Article) -> None:
    with transaction.atomic():
        for votes in range(2, 5):
            article.votes = votes
            article.save()
    assert [data["votes"] for _, data in told(ARTICLE)] == [1, 2, 3, 4]


# -- many-to-many ---------------------------------------------------------------------------------------------------


@pytest.fixture
def tags() -> list[Tag]:
    return [Tag.objects.create(name=name) for name in "abc"]


def published_tags() -> list[list[int]]:
    return [data["tags"] for _, data in told(DETAIL)]


def test_tags_that_are_added_removed_cleared_and_set_are_updates(article: Article, tags: list[Tag], mode: Mode) -> None:
    a, b, c = (tag.pk for tag in tags)
    with mode():
        article.tags.add(*tags)
        article.tags.remove(tags[0])
        article.tags.clear()
        article.tags.set([tags[1], tags[2]])
    assert published_tags() == [[], [a, b, c], [b, c], [], [b, c]]
    assert set(types(DETAIL)[1:]) == {"updated"}
    with mode():
        article.tags.set(tags[:1])
    assert published_tags()[-1] == [a]


def test_from_the_other_side_the_same_changes_are_the_same_updates(
    article: Article, tags: list[Tag], mode: Mode
) -> None:
    tag = tags[0]
    other = Article.objects.create(title="Other")
    assert types(DETAIL) == ["created", "created"]
    with capture_events(DETAIL) as seen, mode():
        tag.articles.add(article, other)
        tag.articles.remove(other)
        tag.articles.clear()
        tag.articles.set([other])
    assert sorted((event.data["pk"], event.data["tags"]) for event in seen[:2]) == [
        (article.pk, [tag.pk]),
        (other.pk, [tag.pk]),
    ]
    assert [(event.data["pk"], event.data["tags"]) for event in seen[2:]] == [
        (other.pk, []),
        (article.pk, []),
        (other.pk, [tag.pk]),
    ]
    assert {event.type for event in seen} == {"updated"}


def test_an_object_that_is_made_through_a_relation_is_an_update_too(article: Article, mode: Mode) -> None:
    with mode():
        tag = article.tags.create(name="new")
    assert published_tags() == [[], [tag.pk]]


def test_adding_what_is_there_and_removing_what_is_not_changes_no_truth(
    article: Article, tags: list[Tag], mode: Mode
) -> None:
    article.tags.add(tags[0])
    with mode():
        article.tags.add(tags[0])
        article.tags.set([tags[0]])
        article.tags.remove(tags[1])
    assert published_tags()[1:] in ([[tags[0].pk]] * count for count in (1, 2))


def test_a_feed_that_does_not_name_the_relation_hears_nothing_of_it(article: Article, tags: list[Tag]) -> None:
    article.tags.add(*tags)
    tags[0].articles.clear()
    assert types(ARTICLE) == ["created"]


def test_tags_of_a_child_and_of_a_proxy_are_updates_of_the_feed_s_row(tags: list[Tag], mode: Mode) -> None:
    review = Review.objects.create(title="Child", stars=3)
    with mode():
        review.tags.add(tags[0])
        Headline.objects.get(pk=review.pk).tags.add(tags[1])
    assert published_tags() == [[], [tags[0].pk], [tags[0].pk, tags[1].pk]]
    assert last(DETAIL)[1]["title"] == "Child"


def test_the_other_columns_of_an_update_by_relation_are_what_the_database_holds(
    article: Article, tags: list[Tag]
) -> None:
    article.title = "never saved"
    article.tags.add(tags[0])
    assert last(DETAIL)[1]["title"] == "One"


# -- proxies, parents, children -------------------------------------------------------------------------------------


def test_changes_by_a_proxy_are_changes_of_its_table(article: Article, mode: Mode) -> None:
    with mode():
        headline = Headline.objects.get(pk=article.pk)
        headline.title = "By proxy"
        headline.save()
        headline.delete()
    for topic in (ARTICLE, DETAIL):
        assert types(topic) == ["created", "updated", "deleted"]
        assert told(topic)[1][1]["title"] == "By proxy"
        assert told(topic)[2][1] == {"pk": article.pk}


def test_a_feed_of_a_proxy_hears_of_every_change_of_the_table(
    feed: Callable[[type[LiveFeed]], None], mode: Mode
) -> None:
    class HeadlineFeed(LiveFeed):
        model = Headline
        fields = ["title"]

    feed(HeadlineFeed)
    with mode():
        article = Article.objects.create(title="One")
        Headline.objects.create(title="Two")
        review = Review.objects.create(title="Three")
        pk = article.pk
        article.delete()
    assert [(type, data.get("title")) for type, data in told("testapp.headline")] == [
        ("created", "One"),
        ("created", "Two"),
        ("created", "Three"),
        ("deleted", None),
    ]
    assert told("testapp.headline")[2][1]["pk"] == review.pk
    assert last("testapp.headline") == ("deleted", {"pk": pk})


def test_a_child_that_is_saved_is_a_change_of_its_parent_too(mode: Mode) -> None:
    with mode():
        review = Review.objects.create(title="One", stars=3)
        review.title, review.stars = "Two", 4
        review.save()
    assert told(REVIEW) == [
        ("created", {"pk": review.pk, "title": "One", "stars": 3}),
        ("updated", {"pk": review.pk, "title": "Two", "stars": 4}),
    ]
    assert told(ARTICLE) == [
        ("created", {"pk": review.pk, "title": "One", "votes": 0}),
        ("updated", {"pk": review.pk, "title": "Two", "votes": 0}),
    ]
    assert types(DETAIL) == ["created", "updated"]
    assert last(DETAIL)[1]["url"] == f"/articles/{review.pk}/"


def test_a_parent_that_is_saved_is_a_change_of_its_child_with_the_child_s_row(mode: Mode) -> None:
    review = Review.objects.create(title="One", stars=3)
    parent = Article.objects.get(pk=review.pk)
    parent.title = "Two"
    with mode():
        parent.save()
        Headline.objects.get(pk=review.pk).save()
    assert told(REVIEW)[1:] == [("updated", {"pk": review.pk, "title": "Two", "stars": 3})] * 2
    assert types(ARTICLE) == ["created", "updated", "updated"]


def test_a_parent_without_a_child_says_nothing_to_the_child_s_feed(article: Article, mode: Mode) -> None:
    with mode():
        article.save()
        Article.objects.get(pk=article.pk).delete()
    assert told(REVIEW) == []


def test_a_parent_without_a_child_is_no_row_of_a_child_s_feed_that_names_parent_s_columns_only(
    feed: Callable[[type[LiveFeed]], None], mode: Mode
) -> None:
    class TitleFeed(LiveFeed):
        model = Review
        name = "spare"
        fields = ["title"]

    feed(TitleFeed)
    with mode():
        article = Article.objects.create(title="no review")
        article.save()
        review = Review.objects.create(title="a review")
        Article.objects.get(pk=review.pk).save()
    assert told("spare") == [(type, {"pk": review.pk, "title": "a review"}) for type in ("created", "updated")]


def delete_child(review: Review) -> None:
    review.delete()


def delete_parent(review: Review) -> None:
    Article.objects.get(pk=review.pk).delete()


def delete_proxy(review: Review) -> None:
    Headline.objects.get(pk=review.pk).delete()


def delete_children(review: Review) -> None:
    Review.objects.filter(pk=review.pk).delete()


def delete_parents(review: Review) -> None:
    Article.objects.all().delete()


@pytest.mark.parametrize("delete", [delete_child, delete_parent, delete_proxy, delete_children, delete_parents])
def test_however_a_child_is_deleted_each_feed_says_so_exactly_once(
    delete: Callable[[Review], None], mode: Mode
) -> None:
    review = Review.objects.create(title="One")
    pk = review.pk
    with mode():
        delete(review)
    for topic in (ARTICLE, DETAIL, REVIEW):
        assert [entry for entry in told(topic) if entry[0] == "deleted"] == [("deleted", {"pk": pk})]
        assert types(topic)[-1] == "deleted"


def test_a_child_that_is_deleted_without_its_parent_is_gone_from_its_own_feed_only(mode: Mode) -> None:
    review = Review.objects.create(title="One")
    pk = review.pk
    with mode():
        review.delete(keep_parents=True)
    assert last(REVIEW) == ("deleted", {"pk": pk})
    assert "deleted" not in types(ARTICLE)
    assert Article.objects.filter(pk=pk).exists()


# -- other ways of writing ------------------------------------------------------------------------------------------


def test_cascades_and_deletions_of_many_say_so_for_each_row(mode: Mode) -> None:
    author = Author.objects.create(name="Ada")
    keys = {Article.objects.create(title=str(number), author=author).pk for number in range(3)}
    other = Article.objects.create(title="stays")
    with mode():
        author.delete()
    gone = [data["pk"] for type, data in told(ARTICLE) if type == "deleted"]
    assert set(gone) == keys
    assert len(gone) == 3
    with mode():
        Article.objects.filter(pk=other.pk).delete()
    assert last(ARTICLE) == ("deleted", {"pk": other.pk})


def test_fixtures_publish_nothing(tmp_path: Path, sent: list[Stretch]) -> None:
    user = User.objects.create(username="ada")
    rows = [
        {"model": "testapp.tag", "pk": 7, "fields": {"name": "a"}},
        {"model": "testapp.article", "pk": 7, "fields": {"title": "One", "tags": [7]}},
        {"model": "testapp.note", "pk": 7, "fields": {"owner": user.pk, "board": "open", "text": "One"}},
        {"model": "testapp.review", "pk": 7, "fields": {"stars": 3}},
        {"model": "testapp.task", "pk": 7, "fields": {"title": "One"}},
    ]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    for _ in range(2):  # new rows, then rows that are there
        call_command("loaddata", str(path), verbosity=0)
    assert Article.objects.get(pk=7).tags.count() == 1
    assert [told(topic) for topic in (ARTICLE, DETAIL, REVIEW, TASK, "testapp.note:open")] == [[]] * 5
    assert sent == []


def test_a_row_that_came_from_a_fixture_is_published_when_it_changes_later(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"model": "testapp.article", "pk": 7, "fields": {"title": "One", "tags": []}}]))
    call_command("loaddata", str(path), verbosity=0)
    article = Article.objects.get(pk=7)
    article.save()
    article.tags.add(Tag.objects.create(name="a"))
    assert types(ARTICLE) == ["updated"]
    assert types(DETAIL) == ["updated", "updated"]


def test_create_or_update_helpers_publish(mode: Mode) -> None:
    with mode():
        Article.objects.get_or_create(title="One")
        Article.objects.get_or_create(title="One")
        Article.objects.update_or_create(title="One", defaults={"votes": 2})
        Article.objects.update_or_create(title="Two", defaults={"votes": 3})
    assert [(type, data["title"], data["votes"]) for type, data in told(ARTICLE)] == [
        ("created", "One", 0),
        ("updated", "One", 2),
        ("created", "Two", 3),
    ]


@pytest.mark.parametrize("atomic_requests", [False, True])
def test_a_sync_view_publishes_with_and_without_a_transaction_around_the_request(
    atomic_requests: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", atomic_requests)
    response = Client().get("/save/", {"title": "From a view"})
    assert response.status_code == 200
    assert [data["title"] for _, data in told(ARTICLE)] == ["From a view"]


def test_a_request_that_fails_publishes_nothing_where_requests_are_atomic(
    monkeypatch: pytest.MonkeyPatch, sent: list[Stretch]
) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    monkeypatch.setattr("tests.testapp.views.HttpResponse", None)
    response = Client(raise_request_exception=False).get("/save/", {"title": "phantom"})
    assert response.status_code == 500
    assert (told(ARTICLE), sent) == ([], [])


async def test_an_async_view_publishes() -> None:
    response = await AsyncClient().get("/asave/", {"title": "From an async view"})
    assert response.status_code == 200
    assert [data["title"] for _, data in await sync_to_async(told)(ARTICLE)] == ["From an async view"]
    await sync_to_async(connections.close_all)()


async def test_the_async_methods_of_models_publish() -> None:
    article = await Article.objects.acreate(title="One")
    article.title = "Two"
    await article.asave()
    await article.tags.aadd(await Tag.objects.acreate(name="a"))
    await article.adelete()
    assert await sync_to_async(types)(DETAIL) == ["created", "updated", "updated", "deleted"]
    await sync_to_async(connections.close_all)()


def test_a_thread_of_its_own_publishes() -> None:
    in_thread(lambda: Article.objects.create(title="From a thread"))
    assert types(ARTICLE) == ["created"]


# -- topics that change ---------------------------------------------------------------------------------------------


@pytest.fixture
def owner() -> User:
    return User.objects.create(username="ada")


@pytest.fixture
def note(owner: User) -> Note:
    return Note.objects.create(owner=owner, board="a", text="One")


def on(name: object) -> list[tuple[str, Any]]:
    return told(f"testapp.note:{name}")


def test_topics_that_a_row_leaves_enters_and_stays_on_are_told_each_its_own(
    note: Note, owner: User, mode: Mode
) -> None:
    note.board = "b"
    with mode():
        note.save()
    data = {"pk": note.pk, "text": "One", "board": "b"}
    assert on("a") == [("created", {**data, "board": "a"}), ("deleted", {"pk": note.pk})]
    assert on("b") == [("created", data)]
    assert on(f"of-{owner.pk}") == [("created", {**data, "board": "a"}), ("updated", data)]


def test_a_row_that_leaves_all_its_topics_is_deleted_there_and_created_when_it_comes_back(
    note: Note, mode: Mode
) -> None:
    for shown in (False, False, True):
        note.shown = shown
        with mode():
            note.save()
    assert [type for type, _ in on("a")] == ["created", "deleted", "created"]


def test_a_row_that_begins_without_topics_says_nothing_until_it_has_some(owner: User, mode: Mode) -> None:
    with mode():
        note = Note.objects.create(owner=owner, board="a", text="Draft", shown=False)
        note.text = "Still a draft"
        note.save()
        note.shown = True
        note.save()
    assert on("a") == [("created", {"pk": note.pk, "text": "Still a draft", "board": "a"})]


def test_a_row_that_moves_twice_in_one_transaction_is_followed_step_by_step(note: Note, mode: Mode) -> None:
    with mode():
        for board in "bca":
            note.board = board
            note.save()
    assert [[type for type, _ in on(board)] for board in "abc"] == [
        ["created", "deleted", "created"],
        ["created", "deleted"],
        ["created", "deleted"],
    ]


def test_a_stale_instance_moves_the_row_from_where_the_database_had_it(note: Note, mode: Mode) -> None:
    stale = Note.objects.get(pk=note.pk)
    note.board = "b"
    note.save()
    with mode():
        stale.save()
    assert [type for type, _ in on("a")] == ["created", "deleted", "created"]
    assert [type for type, _ in on("b")] == ["created", "deleted"]


def test_a_save_of_some_fields_leaves_the_row_on_the_topics_of_the_database(note: Note, mode: Mode) -> None:
    stale = Note.objects.get(pk=note.pk)
    note.board = "b"
    note.save()
    stale.text = "Two"
    with mode():
        stale.save(update_fields=["text"])
    assert on("b")[-1] == ("updated", {"pk": note.pk, "text": "Two", "board": "b"})
    assert [type for type, _ in on("a")] == ["created", "deleted"]


def test_a_deletion_is_told_where_the_database_had_the_row(note: Note, owner: User, mode: Mode) -> None:
    pk = note.pk
    note.board = "never saved"
    with mode():
        note.delete()
    assert on("a")[-1] == on(f"of-{owner.pk}")[-1] == ("deleted", {"pk": pk})
    assert on("never saved".replace(" ", "-")) == []


def test_a_cascade_is_told_on_the_topics_of_each_row(owner: User, mode: Mode) -> None:
    notes = [Note.objects.create(owner=owner, board=board, text="") for board in "ab"]
    with mode():
        owner.delete()
    assert [on(board)[-1] for board in "ab"] == [("deleted", {"pk": note.pk}) for note in notes]


def test_a_move_that_is_rolled_back_leaves_the_row_where_it_was(note: Note) -> None:
    note.board = "b"
    with rolled_back():
        note.save()
    note.board = "c"
    note.save()
    assert [[type for type, _ in on(board)] for board in "abc"] == [["created", "deleted"], [], ["created"]]


def test_without_autocommit_moves_are_part_of_the_transaction(note: Note) -> None:
    transaction.set_autocommit(False)
    try:
        note.board = "b"
        note.save()
        transaction.commit()
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    look()
    assert [type for type, _ in on("a")] == ["created", "deleted"]
    assert [type for type, _ in on("b")] == ["created"]


# -- another database -----------------------------------------------------------------------------------------------

ELSEWHERE = "testapp.elsewhere"


@pytest.fixture(params=["autocommit", "atomic"])
def mode_elsewhere(request: pytest.FixtureRequest) -> Mode:
    return nullcontext if request.param == "autocommit" else lambda: transaction.atomic(using="other")


def test_changes_in_another_database_are_published(mode_elsewhere: Mode) -> None:
    with mode_elsewhere():
        row = Elsewhere.objects.create(text="One")
        pk = row.pk
        row.text = Concat(F("text"), Value("!"))
        row.save()
        row.delete()
    assert told(ELSEWHERE) == [
        ("created", {"pk": pk, "text": "One"}),
        ("updated", {"pk": pk, "text": "One!"}),
        ("deleted", {"pk": pk}),
    ]


def test_changes_in_another_database_are_published_after_its_commit_only(sent: list[Stretch]) -> None:
    with transaction.atomic(using="other"):
        Elsewhere.objects.create(text="One")
        assert (told(ELSEWHERE), sent) == ([], [])
    assert types(ELSEWHERE) == ["created"]


def test_what_is_rolled_back_in_another_database_is_never_seen(sent: list[Stretch]) -> None:
    with rolled_back("other"):
        Elsewhere.objects.create(text="phantom")
    with transaction.atomic(using="other"):
        with rolled_back("other"):
            Elsewhere.objects.create(text="phantom")
        Elsewhere.objects.create(text="real")
    assert [data["text"] for _, data in told(ELSEWHERE)] == ["real"]
    assert [event.data["text"] for stretch in sent for event in stretch.events] == ["real"]


def test_a_rollback_of_the_history_s_database_leaves_changes_elsewhere_alone(sent: list[Stretch]) -> None:
    with transaction.atomic(using="other"):
        with rolled_back():
            Elsewhere.objects.create(text="One")
        assert sent == []
    assert types(ELSEWHERE) == ["created"]


def test_nothing_is_told_that_the_history_may_still_take_back(mode_elsewhere: Mode, sent: list[Stretch]) -> None:
    """A change elsewhere commits while the history's own database is in a transaction, which then rolls back."""
    with rolled_back():
        with mode_elsewhere():
            Elsewhere.objects.create(text="One")
        assert sent == []
    assert {event.id for stretch in sent for event in stretch.events} <= {event.id for event in stored(ELSEWHERE)}


def test_a_change_elsewhere_during_a_transaction_of_the_history_s_database_is_told_after_it(
    mode_elsewhere: Mode, sent: list[Stretch]
) -> None:
    with transaction.atomic():
        with mode_elsewhere():
            Elsewhere.objects.create(text="One")
        assert sent == []
    assert types(ELSEWHERE) == ["created"]
    assert [event.data["text"] for stretch in sent for event in stretch.events] == ["One"]


# -- writers at once ------------------------------------------------------------------------------------------------


def change(pk: int, **values: Any) -> None:
    """Save some columns of an article, as another process would."""

    def work() -> None:
        article = Article.objects.get(pk=pk)
        for name, value in values.items():
            setattr(article, name, value)
        article.save(update_fields=list(values))

    in_thread(work)


def delete(pk: int) -> None:
    in_thread(lambda: Article.objects.get(pk=pk).delete())


def test_two_savers_in_autocommit_publish_in_the_order_of_the_rows_truth(article: Article) -> None:
    """The second one saves and publishes between the first one's commit and its receiver."""
    article.title = "first"
    with interrupted('UPDATE "testapp_article"', lambda: change(article.pk, title="second")):
        article.save()
    assert Article.objects.get(pk=article.pk).title == "second"
    for topic in (ARTICLE, DETAIL):
        assert last(topic)[1]["title"] == "second"
        titles = [data["title"] for _, data in told(topic)]
        assert titles[titles.index("second") :] == ["second", "second"]


def test_a_creator_and_a_saver_in_autocommit_publish_in_the_order_of_the_rows_truth() -> None:
    article = Article(title="first")

    def rival() -> None:
        change(Article.objects.using("default").values_list("pk", flat=True).get(), title="second")

    with interrupted('INSERT INTO "testapp_article"', lambda: in_thread(rival)):
        article.save()
    for topic in (ARTICLE, DETAIL):
        assert {data["title"] for _, data in told(topic)} == {"second"}
        assert "created" in types(topic)


def test_save_against_delete_never_leaves_an_updated_after_a_deleted(article: Article) -> None:
    """The row is deleted, and that is published, between the save's commit and its receiver."""
    article.title = "ghost"
    with interrupted('UPDATE "testapp_article"', lambda: delete(article.pk)):
        article.save()
    for topic in (ARTICLE, DETAIL):
        assert types(topic) == ["created", "deleted"]


def test_create_against_delete_never_leaves_a_created_after_a_deleted() -> None:
    def rival() -> None:
        Article.objects.get().delete()

    with interrupted('INSERT INTO "testapp_article"', lambda: in_thread(rival)):
        Article(title="ghost").save()
    for topic in (ARTICLE, DETAIL):
        assert types(topic) == ["deleted"]


def test_a_save_while_a_deletion_looks_around_comes_before_it(article: Article) -> None:
    pk = article.pk
    with interrupted('FROM "testapp_review"', lambda: change(pk, title="just in time")):
        article.delete()
    for topic in (ARTICLE, DETAIL):
        assert types(topic) == ["created", "updated", "deleted"]


def test_a_row_that_was_deleted_and_made_again_meanwhile_is_published_as_it_is_now(article: Article) -> None:
    def rival() -> None:
        Article.objects.get(pk=article.pk).delete()
        Article.objects.create(pk=article.pk, title="reborn")

    article.title = "ghost"
    with interrupted('UPDATE "testapp_article"', lambda: in_thread(rival)):
        article.save()
    assert [(type, data.get("title")) for type, data in told(ARTICLE)] == [
        ("created", "One"),
        ("deleted", None),
        ("created", "reborn"),
        ("updated", "reborn"),
    ]


def test_a_child_saved_against_its_deletion_leaves_no_ghost_in_any_feed() -> None:
    review = Review.objects.create(title="One", stars=1)
    review.title = "ghost"
    with interrupted('UPDATE "testapp_review"', lambda: delete(review.pk)):
        review.save()
    for topic in (ARTICLE, DETAIL, REVIEW):
        assert types(topic) == ["created", "deleted"]


def test_a_row_that_moves_in_autocommit_while_another_one_moves_it_on_ends_on_one_topic_only(note: Note) -> None:
    def rival() -> None:
        moved = Note.objects.get(pk=note.pk)
        moved.board = "c"
        moved.save()

    note.board = "b"
    with interrupted('UPDATE "testapp_note"', lambda: in_thread(rival)):
        note.save()
    present = {board for board in "abc" if (events := on(board)) and events[-1][0] != "deleted"}
    assert present == {"c"}


def test_many_savers_in_autocommit_end_with_the_rows_truth(article: Article) -> None:
    def saver(number: int) -> Callable[[], None]:
        def save() -> None:
            mine = Article.objects.get(pk=article.pk)
            for turn in range(8):
                mine.title = f"{number} {turn}"
                mine.save(update_fields=["title"])

        return save

    at_once([saver(number) for number in range(4)])
    truth = Article.objects.get(pk=article.pk).title
    for topic in (ARTICLE, DETAIL):
        assert len(stored(topic)) == 33
        assert last(topic)[1]["title"] == truth


def save_if_there(article: Article) -> None:
    try:
        article.save(update_fields=["votes"])
    except DatabaseError as error:
        if "did not affect any rows" not in str(error):
            raise


def test_many_savers_and_deleters_in_autocommit_leave_no_ghost() -> None:
    keys = [Article.objects.create(title="One").pk for _ in range(6)]

    def saver() -> None:
        for pk in keys:
            for votes in range(3):
                for mine in Article.objects.filter(pk=pk):
                    mine.votes = votes
                    save_if_there(mine)

    def deleter() -> None:
        for pk in keys:
            for mine in Article.objects.filter(pk=pk):
                mine.delete()

    at_once([saver, saver, deleter])
    for topic in (ARTICLE, DETAIL):
        ends = {data["pk"]: type for type, data in told(topic)}
        assert ends == dict.fromkeys(keys, "deleted")


def test_many_movers_in_transactions_end_where_the_database_has_the_row(note: Note) -> None:
    def mover(number: int) -> Callable[[], None]:
        def move() -> None:
            for turn in range(6):
                with transaction.atomic():
                    Note(pk=note.pk, owner_id=note.owner_id, board=f"{number}-{turn}", text="One").save()

        return move

    at_once([mover(number) for number in range(4)])
    board = Note.objects.get(pk=note.pk).board
    boards = ["a", *(f"{number}-{turn}" for number in range(4) for turn in range(6))]
    assert [name for name in boards if on(name)[-1][0] != "deleted"] == [board]


def test_many_deleters_of_rows_that_move_do_not_get_in_each_other_s_way(owner: User) -> None:
    keys = [Note.objects.create(owner=owner, board="a", text=str(number)).pk for number in range(24)]

    def deleter(number: int) -> Callable[[], None]:
        def delete() -> None:
            for pk in keys[number::4]:
                Note.objects.get(pk=pk).delete()

        return delete

    at_once([deleter(number) for number in range(4)])
    assert sorted(data["pk"] for type, data in on("a") if type == "deleted") == keys
