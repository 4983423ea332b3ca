"""Django's entry: find the feeds, and check them."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class LivefeedConfig(AppConfig):
    name = "livefeed"
    verbose_name = _("Live feeds")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks  # noqa: F401 - registers them; needs the apps to be there
        from .registry import autodiscover
        from .revoking import connect

        autodiscover()
        connect()
