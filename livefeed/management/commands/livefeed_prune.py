"""``manage.py livefeed_prune``: trim the history by hand."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from livefeed.history import get_history
from livefeed.leases import get_leases
from livefeed.registry import registry


class Command(BaseCommand):
    help = (
        "Remove the events that LIVEFEED_RETENTION and LIVEFEED_RETENTION_EVENTS do not keep, and leases that expired "
        "long ago. Processes that serve streams do this by themselves, about every minute."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        events = get_history().trim(registry.retention)
        leases = get_leases().sweep()
        self.stdout.write(f"Removed {events} events and {leases} leases.")
