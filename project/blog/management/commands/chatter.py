"""Let a busy evening pass on the page, to watch it live: `python manage.py chatter --count 20 --seconds 2`."""

import time
from argparse import ArgumentParser
from itertools import cycle, islice
from random import randint
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from project.blog.models import Entry, Reading, Section
from project.blog.story import SECTIONS, STILL_TO_COME


class Command(BaseCommand):
    """Write entries and read the gauge, and now and then applaud, correct or delete an entry."""

    help = "Write a number of entries, one every few seconds; some are applauded, corrected and deleted again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--count", type=int, default=10, help="how many entries to write (default: 10)")
        parser.add_argument("--seconds", type=float, default=2.0, help="the pause between two of them (default: 2)")

    def handle(self, *args: Any, count: int, seconds: float, **options: Any) -> None:
        author = get_user_model().objects.filter(username="editor").first()
        sections = {section.name: section for section in Section.objects.all()}
        if author is None or not sections.keys() >= set(SECTIONS):
            raise CommandError("The editor or a section is missing. Run manage.py demo first.")
        before = None
        for number, post in enumerate(islice(cycle(STILL_TO_COME), count), start=1):
            entry = Entry.objects.create(
                title=post.title,
                text=post.text,
                section=sections[post.section],
                author=author,
                status=Entry.Status.PUBLISHED,
            )
            _read_the_gauge()
            self.stdout.write(f"{number}/{count}: {post.title}")
            if before is not None:
                _touch(before, number)
            before = entry
            if number < count:
                time.sleep(seconds)


def _touch(entry: Entry, number: int) -> None:
    """Do what happens to an entry that is there already: applause mostly, every fifth is taken back."""
    if number % 5 == 0:
        entry.delete()
    elif number % 3 == 0:
        entry.text += " (Corrected: an earlier version had the time wrong.)"
        entry.save()
    else:
        entry.applaud()


def _read_the_gauge() -> None:
    """Let the water rise and fall by a few centimetres."""
    last = Reading.objects.first()
    before = last.cm if last else 350
    Reading.objects.create(cm=min(max(before + randint(-12, 12), 120), 520))
