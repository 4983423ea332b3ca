"""Sections, the entries of the live blog, the notices to one person, and the readings of the tide gauge."""

from datetime import timedelta
from typing import Any, Self

from django.conf import settings
from django.core.validators import MaxValueValidator
from django.db import models
from django.db.models import F
from django.urls import reverse
from django.utils import timezone

from livefeed import LiveModel

EDITED_AFTER = timedelta(minutes=1)


class Section(models.Model):
    """A part of the blog with a page of its own, such as "Harbour"."""

    name = models.CharField(max_length=40, unique=True)
    slug = models.SlugField(max_length=40, unique=True)
    position = models.PositiveSmallIntegerField(default=0, help_text="Sections with lower numbers come first.")

    class Meta:
        ordering = ["position", "name"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("blog:section", args=[self.slug])


class EntryQuerySet(models.QuerySet["Entry"]):
    """Entries by what may be done with them."""

    def published(self) -> Self:
        """Return what every reader may see."""
        return self.filter(status=Entry.Status.PUBLISHED)

    def drafts(self) -> Self:
        """Return what only the staff may see."""
        return self.filter(status=Entry.Status.DRAFT)


class Entry(LiveModel, models.Model):
    """One post of the live blog."""

    class Status(models.TextChoices):
        DRAFT = "draft", "Draft"
        PUBLISHED = "published", "Published"

    title = models.CharField(max_length=120)
    text = models.TextField()
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="entries")
    section = models.ForeignKey(Section, on_delete=models.PROTECT, related_name="entries")
    pinned = models.BooleanField(default=False, help_text="Keep this entry at the top of the page.")
    status = models.CharField(max_length=10, choices=Status, default=Status.DRAFT)
    status_since = models.DateTimeField(default=timezone.now, editable=False)
    applause = models.PositiveIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = EntryQuerySet.as_manager()

    class Meta:
        # The order in which entries reach a list that is already open: what was published (or put back among the
        # drafts) last is on top.
        ordering = ["-status_since", "-pk"]
        verbose_name_plural = "entries"
        indexes = [models.Index(fields=["status", "-status_since"], name="blog_entry_by_time")]

    def __str__(self) -> str:
        return self.title

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the entry. Where its status changes by that, its place in the list is that of this moment."""
        fields = kwargs.get("update_fields")
        if not self._state.adding and fields is None:
            self.updated_at = timezone.now()
        if not self._state.adding and (fields is None or "status" in fields) and self._changes_status():
            self.status_since = timezone.now()
            kwargs["update_fields"] = fields and {*fields, "status_since"}
        super().save(*args, **kwargs)

    def get_absolute_url(self) -> str:
        return reverse("blog:entry", args=[self.pk])

    def get_edit_url(self) -> str:
        """Return the address of the page where the staff changes this entry."""
        return reverse("blog:edit", args=[self.pk])

    @property
    def is_published(self) -> bool:
        """Whether every reader may see this entry."""
        return self.status == self.Status.PUBLISHED

    @property
    def edited(self) -> bool:
        """Whether the entry was changed after it had stood there for a while."""
        return self.updated_at - self.status_since > EDITED_AFTER

    def _changes_status(self) -> bool:
        return Entry.objects.filter(pk=self.pk).exclude(status=self.status).exists()

    def applaud(self) -> None:
        """Count one reader's applause. Two at the same moment count as two."""
        self.applause = F("applause") + 1
        self.save(update_fields=["applause"])


class Notice(LiveModel, models.Model):
    """A line to one person, and to nobody else."""

    recipient = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="notices")
    entry = models.ForeignKey(Entry, on_delete=models.CASCADE, related_name="notices")
    text = models.CharField(max_length=240)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return self.text


class Reading(LiveModel, models.Model):
    """How high the water stands at the quay, as somebody read it off the gauge."""

    HIGHEST = 600

    cm = models.PositiveSmallIntegerField(
        "centimetres", validators=[MaxValueValidator(HIGHEST)], help_text="Above the zero of the gauge."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.cm} cm"
