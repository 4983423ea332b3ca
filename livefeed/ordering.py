"""By which fields a feed's items stand in their order, where a page can tell so too.

A page has no rows, just the data of items and events: it can put an item into its place only where everything that the
rows are ordered by is in there, as a value that JavaScript orders as the database does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import models
from django.db.models.constants import LOOKUP_SEP
from django.db.models.expressions import F, OrderBy

from .feeds import LiveFeed
from .values import field_of

#: Fields whose values in JSON stand in the order of the column. Not decimals and durations, which are text there.
_COMPARABLE = (
    models.BooleanField,
    models.CharField,
    models.DateField,
    models.FloatField,
    models.IntegerField,
    models.TextField,
    models.TimeField,
    models.UUIDField,
)


def order_of(feed: LiveFeed, items: models.QuerySet[Any]) -> tuple[str, ...]:
    """Return the names that these items are ordered by, "-" before what descends; () where a page can't know them."""
    query = items.query
    terms = query.order_by or (query.get_meta().ordering if query.default_ordering else ()) or ()
    names = [_name(items.model, term) for term in terms]
    if query.extra_order_by or not all(_is_known(feed, items.model, name.lstrip("-")) for name in names):
        return ()
    return tuple(names) if query.standard_ordering else reversed_order(names)


def reversed_order(names: Sequence[str]) -> tuple[str, ...]:
    """Return the opposite order."""
    return tuple(name[1:] if name.startswith("-") else f"-{name}" for name in names)


def place(data: Mapping[str, Any], order: Sequence[str]) -> str:
    """Return the values of an item that its place depends on, as JSON; "" where the data lacks one of them."""
    names = [name.lstrip("-") for name in order]
    if not names or not all(name in data for name in names):
        return ""
    return json.dumps([data[name] for name in names], ensure_ascii=False, separators=(",", ":"))


def _name(model: type[models.Model], term: Any) -> str:
    """Return what is ordered by as order_by() spells it; "?" for what is no field."""
    descends = isinstance(term, OrderBy) and term.descending
    if isinstance(term, OrderBy):
        term = "?" if term.nulls_first or term.nulls_last else term.expression
    if isinstance(term, F):
        term = term.name  # type: ignore[attr-defined]
    if not isinstance(term, str):
        return "?"
    if term.startswith("-"):
        descends, term = not descends, term[1:]
    key = model._meta.pk.name
    return ("-" if descends else "") + ("pk" if term == key else term.removeprefix("+"))


def _is_known(feed: LiveFeed, model: type[models.Model], name: str) -> bool:
    if name != "pk" and name not in feed.field_names:
        return False
    *path, last = name.split(LOOKUP_SEP)
    for step in path:
        relation = field_of(model, step)
        if relation is None or not relation.is_relation or relation.many_to_many:
            return False
        model = relation.related_model
    field = field_of(model, last)
    while field is not None and field.is_relation:
        if field.many_to_many or last not in ("pk", field.attname):
            return False  # by a relation's own name, rows are in the order of what it leads to
        field = field.target_field
    return isinstance(field, _COMPARABLE)
