"""How a feed's named fields become values, and whether an instance in hand holds what the database holds.

A name is a column, a many-to-many field (its keys), a path over relations (``author__name``), or an attribute, property
or method without arguments of the model.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Sequence
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models.constants import LOOKUP_SEP
from django.db.models.fields.files import FieldFile

#: What an instance must hold in a column, to the exact type, for it to be what a re-read would give. Anything else
#: (an expression, a date as text, a Decimal to be rounded, a field class of the site's own) is read again.
_PLAIN: dict[type[models.Field[Any, Any]], type] = {
    models.AutoField: int,
    models.BigAutoField: int,
    models.BigIntegerField: int,
    models.BooleanField: bool,
    models.CharField: str,
    models.DateField: datetime.date,
    models.DateTimeField: datetime.datetime,
    models.EmailField: str,
    models.FloatField: float,
    models.IntegerField: int,
    models.PositiveBigIntegerField: int,
    models.PositiveIntegerField: int,
    models.PositiveSmallIntegerField: int,
    models.SlugField: str,
    models.SmallAutoField: int,
    models.SmallIntegerField: int,
    models.TextField: str,
    models.URLField: str,
    models.UUIDField: uuid.UUID,
}


def column_names(model: type[models.Model]) -> list[str]:
    """Return the names of all columns of a model: what ``fields = "__all__"`` means."""
    return [field.name for field in model._meta.concrete_fields]


def relations(names: Sequence[str]) -> list[str]:
    """Return what to ``select_related()`` for these names."""
    return [name.rpartition(LOOKUP_SEP)[0] for name in names if LOOKUP_SEP in name]


def value_of(instance: models.Model, name: str) -> Any:
    """Return what a name stands for on an instance; None where a relation on the path is empty."""
    *path, last = name.split(LOOKUP_SEP)
    for step in path:
        instance = getattr(instance, step)
        if instance is None:
            return None
    field = field_of(type(instance), last)
    if field is None:
        value = getattr(instance, last)
        return value() if callable(value) else value
    if field.many_to_many:
        return list(getattr(instance, last).order_by("pk").values_list("pk", flat=True))
    value = getattr(instance, field.attname)
    return value.name if isinstance(value, FieldFile) else value


def field_of(model: type[models.Model], name: str) -> Any:
    """Return the model's own field of that name, or None."""
    try:
        field = model._meta.pk if name == "pk" else model._meta.get_field(name)
    except FieldDoesNotExist:
        return None
    own = field is not None and (field.concrete or (field.many_to_many and not field.auto_created))
    return field if own else None


def resolves(model: type[models.Model], name: str) -> bool:
    """Tell whether a name means something on a model."""
    *path, last = name.split(LOOKUP_SEP)
    for step in path:
        field = field_of(model, step)
        if field is None or not field.is_relation or field.many_to_many:
            return False
        model = field.related_model
    return field_of(model, last) is not None or hasattr(model, last)


def holds_what_the_database_holds(instance: models.Model, names: Sequence[str]) -> bool:
    """Tell whether reading these names again would give the same."""
    return not instance.get_deferred_fields() and all(_is_plain(instance, name) for name in names)


def _is_plain(instance: models.Model, name: str) -> bool:
    field = field_of(type(instance), name)
    if field is None or field.many_to_many:
        return False
    value = getattr(instance, field.attname)
    while isinstance(field, models.ForeignKey):
        field = field.target_field
    if value is None:
        return True
    if isinstance(value, datetime.datetime) and value.tzinfo is not datetime.UTC:
        return False
    return type(value) is _PLAIN.get(type(field))
