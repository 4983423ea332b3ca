"""Models in all the shapes that a feed can meet."""

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models

from livefeed import LiveModel


class Person(User):
    """Users, by another class."""

    class Meta:
        proxy = True


class Author(models.Model):
    name = models.CharField(max_length=100)
    friends = models.ManyToManyField("self")


class Tag(models.Model):
    name = models.CharField(max_length=100)


class Article(models.Model):
    """Plain columns, a relation, a many-to-many field, a property."""

    title = models.CharField(max_length=200)
    votes = models.IntegerField(default=0)
    price = models.DecimalField(max_digits=6, decimal_places=2, default=0)
    published_on = models.DateField(null=True)
    secret = models.CharField(max_length=200, default="secret")
    author = models.ForeignKey(Author, null=True, on_delete=models.CASCADE)
    tags = models.ManyToManyField(Tag, related_name="articles")

    @property
    def url(self) -> str:
        return f"/articles/{self.pk}/"


class Headline(Article):
    class Meta:
        proxy = True


class Review(Article):
    """A child with a table of its own."""

    stars = models.IntegerField(default=0)


class Note(models.Model):
    """Moves between topics: its owner's, and its board's while it is shown."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.CASCADE)
    board = models.CharField(max_length=50)
    text = models.TextField()
    shown = models.BooleanField(default=True)


class Task(LiveModel, models.Model):
    title = models.CharField(max_length=100)


class Elsewhere(models.Model):
    """Lives in the database "other"."""

    text = models.CharField(max_length=100)


class Plain(models.Model):
    """A column of each plain kind."""

    char = models.CharField(max_length=100, default="")
    text = models.TextField(default="")
    integer = models.IntegerField(null=True)
    big = models.BigIntegerField(default=0)
    truth = models.BooleanField(default=False)
    number = models.FloatField(null=True)
    day = models.DateField(null=True)
    moment = models.DateTimeField(null=True)
    key = models.UUIDField(null=True)
