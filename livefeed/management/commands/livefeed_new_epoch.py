"""``manage.py livefeed_new_epoch``: after a restore from a backup, make every older cursor end in a reset."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from livefeed.exceptions import InvalidTopic
from livefeed.history import get_history
from livefeed.topics import validate_topic


class Command(BaseCommand):
    help = (
        "Draw new epochs for all topics, or for those that are named. Run it after the history was restored from a "
        "backup: its numbers will be given out again, and clients must not take them for those they have seen. "
        "Connected clients are told at the next look, and reload what they show."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("topic", nargs="*", help="a topic; without any, all topics")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            topics = [validate_topic(topic) for topic in options["topic"]]
        except InvalidTopic as error:
            raise CommandError(str(error)) from error
        count = get_history().renew_epoch(topics or None)
        self.stdout.write(f"{count} topics have a new epoch.")
