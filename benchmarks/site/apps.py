"""The app of the benchmarked site."""

from django.apps import AppConfig
from django.conf import settings


class SiteConfig(AppConfig):
    """Connects django-eventstream to the model's signal, as its users do."""

    name = "benchmarks.site"
    label = "site"

    def ready(self) -> None:
        if settings.KIND == "eventstream":
            from django.db.models.signals import post_save

            from .eventstream import on_saved
            from .models import Article

            post_save.connect(on_saved, sender=Article)
