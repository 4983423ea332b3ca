"""A look at topics, events and live connections, which can be closed. Nothing is edited; events come by publishing."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from .leases import CHORE
from .models import Lease, StoredEvent, StoredTopic
from .revocations import Revocation
from .revoking import tell

#: Connections in one message to the other processes.
TOLD_AT_ONCE = 500


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
    """Live connections. Who may delete them may close them: at once where the layer works, else in some seconds."""

    list_display = ["holder", "topics", "claimed", "opened_at", "expires_at"]
    search_fields = ["holder", "topics"]
    ordering = ["-opened_at"]
    actions = ["disconnect"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Lease]:
        connections: QuerySet[Lease] = super().get_queryset(request).exclude(holder__startswith=CHORE)
        counted: QuerySet[Lease] = connections.annotate(claimed=Count("claims"))
        return counted

    def has_disconnect_permission(self, request: HttpRequest) -> bool:
        """Return whether this user may close connections: who has the permission to delete them."""
        return super(ReadOnlyAdmin, self).has_delete_permission(request)

    @admin.action(description=_("Disconnect selected connections"), permissions=["disconnect"])
    def disconnect(self, request: HttpRequest, queryset: QuerySet[Lease]) -> None:
        """Close connections. Whoever may still read comes back."""
        tokens = tuple(queryset.values_list("token", flat=True))
        for start in range(0, len(tokens), TOLD_AT_ONCE):
            tell(Revocation(leases=tokens[start : start + TOLD_AT_ONCE], close=True))
        message = ngettext("%(count)d connection is closed.", "%(count)d connections are closed.", len(tokens))
        self.message_user(request, message % {"count": len(tokens)}, messages.SUCCESS)

    @admin.display(description=_("claims"), ordering="claimed")
    def claimed(self, lease: Any) -> int:
        """Return how many limits a connection counts against."""
        return int(lease.claimed)
