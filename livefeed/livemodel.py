"""A mixin for models whose every change is to be delivered: it closes the window between a save and its event."""

from __future__ import annotations

from typing import Any

from django.db import models, router, transaction


class LiveModel:
    """Make ``save()`` and ``delete()`` atomic: ``class Article(LiveModel, models.Model)``.

    In autocommit Django commits a row before livefeed hears of it, and a process that dies in between loses the event.
    With this mixin the row and its event commit together, as they do under ``ATOMIC_REQUESTS`` or in ``atomic()``.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        bases = cls.__mro__
        if models.Model in bases and bases.index(LiveModel) > bases.index(models.Model):
            raise TypeError(f"{cls.__name__}: LiveModel does nothing behind models.Model. Put it first.")

    def save(self, *args: Any, **kwargs: Any) -> Any:
        """Save in a transaction."""
        with transaction.atomic(using=self._alias(kwargs.get("using")), savepoint=False):
            return super().save(*args, **kwargs)  # type: ignore[misc]

    def delete(self, using: str | None = None, keep_parents: bool = False) -> Any:
        """Delete in a transaction."""
        with transaction.atomic(using=self._alias(using), savepoint=False):
            return super().delete(using=using, keep_parents=keep_parents)  # type: ignore[misc]

    def _alias(self, using: str | None) -> str:
        return using or router.db_for_write(type(self), instance=self)  # type: ignore[arg-type]
