"""What is saved, and so becomes events."""

from django.db import models


class Article(models.Model):
    """A row like that of any site."""

    title = models.CharField(max_length=200)
    url = models.CharField(max_length=200)

    class Meta:
        app_label = "site"

    def __str__(self) -> str:
        return self.title


class Message(models.Model):
    """A message as one keeps it by hand."""

    topic = models.CharField(max_length=200, db_index=True)
    body = models.JSONField()

    class Meta:
        app_label = "site"

    def __str__(self) -> str:
        return self.topic
