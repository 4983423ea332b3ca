"""The backends that settings name by dotted path: made on first use, so that nothing needs models at import time."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from .conf import settings

T = TypeVar("T")


def backend(setting: str, base: Callable[..., T]) -> T:
    """Return the one instance of the class that ``LIVEFEED_<setting>`` names, which must be a ``base``."""
    return cast("T", _make(f"LIVEFEED_{setting}", getattr(settings, setting), base))


@cache
def _make(name: str, path: str, base: Any) -> Any:
    try:
        made = import_string(path)()
    except (ImportError, AttributeError, TypeError) as error:  # no text, no class, or an abstract one
        raise ImproperlyConfigured(f"{name} is {path!r}, which can't be imported: {error}") from error
    if not isinstance(made, base):
        raise ImproperlyConfigured(f"{name} is {path!r}, which is not a {base.__module__}.{base.__qualname__}.")
    return made


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in {"LIVEFEED_HISTORY", "LIVEFEED_LEASES", "LIVEFEED_DATABASE", "LIVEFEED_REDIS"}:
        _make.cache_clear()


setting_changed.connect(_forget)
