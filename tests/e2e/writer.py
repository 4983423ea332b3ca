"""A process that writes: `python -m tests.e2e.writer NUMBER EVENTS`, with the demo's settings in the environment.

It says "ready", waits for a line on stdin, and commits EVENTS transactions, each with one event. Every third
transaction it begins is rolled back, and every fifth has a savepoint that is. Writers with an even number save
entries, the others publish; the title says who, which and "kept", or "phantom" for what nobody may ever see.
"""

from __future__ import annotations

import random
import sys
import time

import django

TOPIC = "blog.entry"
KEPT, PHANTOM = "kept", "phantom"


class Doomed(Exception):
    """Roll this transaction back."""


def main(number: int, events: int) -> None:
    django.setup()
    from django.db import transaction

    held = random.Random(number)
    print("ready", flush=True)
    sys.stdin.readline()
    committed = begun = 0
    while committed < events:
        begun += 1
        doomed = begun % 3 == 0
        try:
            with transaction.atomic():
                if begun % 5 == 0:
                    _doomed_savepoint(number, committed)
                _write(number, committed, PHANTOM if doomed else KEPT)
                time.sleep(held.uniform(0, 0.005))  # transactions overlap and commit in another order than they began
                if doomed:
                    raise Doomed
        except Doomed:
            continue
        committed += 1


def _doomed_savepoint(number: int, count: int) -> None:
    from django.db import transaction

    try:
        with transaction.atomic():
            _write(number, count, PHANTOM)
            raise Doomed
    except Doomed:
        pass


def _write(number: int, count: int, fate: str) -> None:
    from django.contrib.auth import get_user_model

    from livefeed import publish
    from project.blog.models import Entry, Section

    title = f"{number} {count} {fate}"
    if number % 2:
        publish(TOPIC, {"title": title}, type="tick")
        return
    author, section = get_user_model().objects.order_by("pk").first(), Section.objects.first()
    Entry.objects.create(
        title=title, text="Written in a hurry.", author=author, section=section, status=Entry.Status.PUBLISHED
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
