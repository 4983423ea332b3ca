"""The live blog as a Django app, with the label `blog`."""

from django.apps import AppConfig


class BlogConfig(AppConfig):
    """The live blog."""

    name = "project.blog"
    label = "blog"
    verbose_name = "Live blog"
