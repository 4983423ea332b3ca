"""A look at topics, events and live connections. Nothing is edited here; events are made by publishing."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from .leases import CHORE
from .models import Lease, StoredEvent, StoredTopic


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """An admin that shows and does not change."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(StoredTopic)
class StoredTopicAdmin(ReadOnlyAdmin):
    list_display = ["name", "head", "floor", "moved_at", "epoch"]
    search_fields = ["name"]
    ordering = ["-moved_at"]


@admin.register(StoredEvent)
class StoredEventAdmin(ReadOnlyAdmin):
    list_display = ["topic", "seq", "type", "created_at", "numbered_at"]
    list_filter = ["type"]
    search_fields = ["topic", "uid"]
    ordering = ["-id"]
    show_full_result_count = False


@admin.register(Lease)
class LeaseAdmin(ReadOnlyAdmin):
    list_display = ["holder", "topics", "claimed", "opened_at", "expires_at"]
    search_fields = ["holder", "topics"]
    ordering = ["-opened_at"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Lease]:
        connections: QuerySet[Lease] = super().get_queryset(request).exclude(holder__startswith=CHORE)
        counted: QuerySet[Lease] = connections.annotate(claimed=Count("claims"))
        return counted

    @admin.display(description=_("claims"), ordering="claimed")
    def claimed(self, lease: Any) -> int:
        """Return how many limits a connection counts against."""
        return int(lease.claimed)
