"""The order of a feed's items, as a page can know it: nothing that it might get wrong."""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Lower

from livefeed import LiveFeed
from livefeed.ordering import order_of, place, reversed_order
from tests.testapp.models import Article, Review


class Ordered(LiveFeed):
    model = Article
    name = "ordered"
    fields = ["title", "votes", "price", "published_on", "author", "author__name", "url"]


@pytest.mark.parametrize(
    ("by", "order"),
    [
        (["-published_on", "-pk"], ("-published_on", "-pk")),
        (["votes", "-id"], ("votes", "-pk")),
        ([F("votes").desc(), F("title"), "pk"], ("-votes", "title", "pk")),
        (["author__name"], ("author__name",)),
        ([], ()),  # in no order
        (["secret"], ()),  # not named
        (["author"], ()),  # by what the relation leads to
        (["author_id"], ()),  # not named
        (["price"], ()),  # text in JSON, and 9.00 comes after 10.00 there
        (["?"], ()),
        ([Lower("title")], ()),
        ([F("votes").desc(nulls_last=True)], ()),
        (["votes", "secret"], ()),
        (["author__friends__name"], ()),
    ],
)
def test_an_order_is_known_where_all_of_it_is_in_the_data_and_compares_as_in_the_database(by: Any, order: Any) -> None:
    assert order_of(Ordered(), Article.objects.order_by(*by)) == order


def test_a_queryset_that_is_reversed_is_in_the_opposite_order() -> None:
    assert order_of(Ordered(), Article.objects.order_by("-votes", "pk").reverse()) == ("votes", "-pk")
    assert reversed_order(["-votes", "pk"]) == ("votes", "-pk")


def test_meta_ordering_counts_where_nothing_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Article._meta, "ordering", ["-votes"])
    assert order_of(Ordered(), Article.objects.all()) == ("-votes",)
    assert order_of(Ordered(), Article.objects.order_by("title")) == ("title",)
    assert order_of(Ordered(), Article.objects.order_by()) == ()


def test_a_child_s_key_is_known_though_it_is_a_relation() -> None:
    class Reviews(LiveFeed):
        model = Review
        fields = ["stars"]

    assert order_of(Reviews(), Review.objects.order_by("-stars", "pk")) == ("-stars", "pk")


def test_the_place_of_an_item_is_the_values_that_it_is_ordered_by() -> None:
    data = {"pk": 7, "title": "Überschrift", "votes": None}
    assert place(data, ["-votes", "title", "pk"]) == '[null,"Überschrift",7]'
    assert place(data, ["-votes", "price"]) == ""
    assert place(data, ()) == ""
