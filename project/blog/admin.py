"""The live blog in Django's admin: what is saved here is on every open page at once."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from project.blog.models import Entry, Notice, Reading, Section


@admin.register(Section)
class SectionAdmin(admin.ModelAdmin):
    """Sections. The slug names a section's topic, so it stays what it was."""

    list_display = ["name", "slug", "position"]

    def get_readonly_fields(self, request: HttpRequest, obj: Section | None = None) -> list[str]:
        return ["slug"] if obj else []

    def get_prepopulated_fields(self, request: HttpRequest, obj: Section | None = None) -> dict[str, Any]:
        return {} if obj else {"slug": ["name"]}


@admin.register(Entry)
class EntryAdmin(admin.ModelAdmin):
    """Entries."""

    list_display = ["title", "section", "status", "pinned", "author", "status_since", "applause"]
    list_filter = ["status", "section", "pinned"]
    list_select_related = ["section", "author"]
    search_fields = ["title", "text"]
    fields = ["title", "text", "section", "author", "pinned", "status"]
    actions = ["publish_entries", "withdraw_entries"]

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        initial = {"author": request.user.pk, "status": Entry.Status.PUBLISHED}
        return {**initial, **super().get_changeform_initial_data(request)}

    @admin.action(description="Publish the selected entries", permissions=["change"])
    def publish_entries(self, request: HttpRequest, queryset: QuerySet[Entry]) -> None:
        self._set_status(request, queryset, Entry.Status.PUBLISHED)

    @admin.action(description="Withdraw the selected entries to the desk", permissions=["change"])
    def withdraw_entries(self, request: HttpRequest, queryset: QuerySet[Entry]) -> None:
        self._set_status(request, queryset, Entry.Status.DRAFT)

    def _set_status(self, request: HttpRequest, queryset: QuerySet[Entry], status: Entry.Status) -> None:
        # One by one and oldest first: QuerySet.update() sends no signals, so no page would hear of it.
        entries = list(queryset.exclude(status=status).reverse())
        for entry in entries:
            entry.status = status
            entry.save()
        self.message_user(request, f"{len(entries)} now {status.label.lower()}.")


@admin.register(Notice)
class NoticeAdmin(admin.ModelAdmin):
    """Notices: writing one here shows it to its recipient at once."""

    list_display = ["text", "recipient", "entry", "created_at"]
    list_select_related = ["recipient", "entry"]


@admin.register(Reading)
class ReadingAdmin(admin.ModelAdmin):
    """Readings of the tide gauge: the newest is what every page shows."""

    list_display = ["cm", "created_at"]
