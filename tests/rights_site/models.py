from django.conf import settings
from django.db import models


class Story(models.Model):
    title = models.CharField(max_length=100)


class Article(models.Model):
    title = models.CharField(max_length=100)


class Entry(models.Model):
    title = models.CharField(max_length=100)
    margin = models.CharField(max_length=100)
    hidden = models.BooleanField(default=False)


class Desk(models.Model):
    name = models.CharField(max_length=100, unique=True)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL)


class ApiKey(models.Model):
    key = models.CharField(max_length=100, unique=True)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
