"""``manage.py livefeed_prune``: trim the history by hand."""

from __future__ import annotations

import logging
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from livefeed.exceptions import InvalidTopic
from livefeed.history import get_history
from livefeed.leases import get_leases
from livefeed.topics import validate_topic
from livefeed.trimming import trim

#: Seconds between two attempts while another process is at it.
AGAIN = 0.5


class Command(BaseCommand):
    help = (
        "Remove the events that are kept no more (`retention` and `retention_events` of their feed, else "
        "LIVEFEED_RETENTION and LIVEFEED_RETENTION_EVENTS), and leases that expired long ago. Processes that serve "
        "streams do this by themselves, about every minute. With --verbosity 2 it says what went of which topic."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--topic",
            action="append",
            dest="topics",
            metavar="NAME",
            help="Remove events of this topic only. May be given several times.",
        )
        parser.add_argument(
            "--wait",
            type=float,
            default=120.0,
            metavar="SECONDS",
            help="How long to wait where another process is trimming. Default 120; 0 gives up at once.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        topics = self._known(options["topics"])
        with self._progress(options["verbosity"]):
            events = self._trim(topics, options["wait"])
        leases = get_leases().sweep() if topics is None else 0
        self.stdout.write(f"Removed {events} events and {leases} leases.")

    def _known(self, topics: list[str] | None) -> list[str] | None:
        """Return the topics asked for. Raises :exc:`CommandError` for one that never had an event."""
        try:
            names = [validate_topic(topic) for topic in topics or ()]
        except InvalidTopic as error:
            raise CommandError(str(error)) from error
        if unknown := set(names) - get_history().heads(names).keys():
            raise CommandError(f"No topic of this name ever had an event: {', '.join(sorted(unknown))}.")
        return names or None

    def _trim(self, topics: list[str] | None, patience: float) -> int:
        end = time.monotonic() + patience
        waiting = False
        while (events := trim(topics)) is None:
            if time.monotonic() >= end:
                raise CommandError("Another process is trimming the history. Try again later, or with a longer --wait.")
            if not waiting:
                self.stdout.write("Another process is trimming the history; waiting for it.")
            waiting = True
            time.sleep(AGAIN)
        return events

    @contextmanager
    def _progress(self, verbosity: int) -> Iterator[None]:
        """Show what the history logs of its progress."""
        logger = logging.getLogger("livefeed.history")
        handler, level = logging.StreamHandler(self.stdout), logger.level
        if verbosity > 1:
            logger.addHandler(handler)
            logger.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
