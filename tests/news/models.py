from django.db import models


class Section(models.Model):
    name = models.CharField(max_length=100)


class Article(models.Model):
    title = models.CharField(max_length=200)
    url = models.URLField(blank=True)
    section = models.ForeignKey(Section, null=True, on_delete=models.CASCADE)
    draft = models.BooleanField(default=False)
