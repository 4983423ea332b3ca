"""Emptying the tables after a test that has transactions of its own, in less time than Django takes.

Django truncates each table, which on PostgreSQL makes new files for it and its indexes and waits for the disk, and then
makes content types and permissions anew, in some forty statements. Here rows are deleted, in one transaction, and
these two tables are left alone as long as they are as they were.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from django.core.management.color import no_style
from django.db import connections, router
from django.test import TransactionTestCase

_django_s = TransactionTestCase._fixture_teardown  # type: ignore[attr-defined]
#: The rows that Django makes by itself, by the alias of their database.
_made: dict[str, Any] = {}


def install() -> None:
    """Let every test of this process be cleaned up after like this."""
    TransactionTestCase._fixture_teardown = _fixture_teardown  # type: ignore[attr-defined]


def _fixture_teardown(case: Any) -> None:
    aliases = case._databases_names(include_mirrors=False)
    if case.available_apps is None and all(_made.get(alias) == _rows(alias) for alias in aliases):
        for alias in aliases:
            _empty(alias)
    else:
        _django_s(case)
        _made.update({alias: _rows(alias) for alias in aliases})


def _rows(alias: str) -> Any:
    """Return the rows of content types and permissions, where a database has them."""
    return [
        list(model._default_manager.using(alias).order_by("pk").values_list())
        for model in _models()
        if router.allow_migrate_model(alias, model)
    ]


def _models() -> list[Any]:
    from django.contrib.auth.models import Permission
    from django.contrib.contenttypes.models import ContentType

    return [ContentType, Permission]


def _empty(alias: str) -> None:
    connection = connections[alias]
    tables = _tables(alias)
    if connection.vendor == "postgresql":
        statements = ["; ".join(f"DELETE FROM {connection.ops.quote_name(table)}" for table in tables)]
    else:
        statements = connection.ops.sql_flush(no_style(), tables)
    connection.ops.execute_sql_flush(statements)


@cache
def _tables(alias: str) -> list[str]:
    names = connections[alias].introspection.django_table_names(only_existing=True, include_views=False)
    return sorted(set(names) - {model._meta.db_table for model in _models()})
