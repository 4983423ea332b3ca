"""A process that writes until its stdin ends: `python -m tests.e2e.fault_writer NUMBER RATE`.

The demo's settings are in the environment. It begins RATE transactions a second, on average. A third of them is rolled
back, others have a savepoint that is. Each writes what it publishes also to the table `fault_truth`, in the same
transaction: what that holds in the end is what was committed, whatever became of the writer. What is done to an entry
is noted while its row is locked, so the notes on one entry are in the order of the commits.

A line on stdin names a moment in which its next commit kills it: UNNUMBERED or UNTOLD. The line LAST_WORD makes it
publish one more event on every topic, and end.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import django

#: Topics that `publish()` writes to, and the sections to which entries go.
TICKS = [f"blog.entry:tick-{number}" for number in range(5)]
SECTIONS = ["harbour", "town"]
TOPICS = [*TICKS, *(f"blog.entry:{slug}" for slug in SECTIONS), "blog.entry"]

#: Between the commit and the numbering; between the numbering and the message to the broker.
UNNUMBERED, UNTOLD = "unnumbered", "untold"

LAST_WORD = "last-word"
#: The share of transactions that publish a burst, and its events: more than a page or a message of the layer holds.
BURSTS, BURST = 0.005, 600

TABLE = """\
CREATE TABLE fault_truth (
    id bigserial PRIMARY KEY, topic text NOT NULL, key text NOT NULL, at float8 NOT NULL,
    writer int NOT NULL, entry bigint
)"""
INSERT = """\
INSERT INTO fault_truth (topic, key, entry, at, writer)
SELECT topic, key, entry, %s, %s FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS noted (topic, key, entry)"""


class Doomed(Exception):
    """Roll this transaction back."""


class Writer:
    """One writer; its number makes its keys its own."""

    def __init__(self, number: int) -> None:
        from django.contrib.auth import get_user_model

        from project.blog.models import Entry, Section

        self.number = number
        self._rng = random.Random(number)
        self._count = 0
        self._truth: list[tuple[str, str, int | None]] = []
        self._author = get_user_model().objects.get(username="editor")
        self._sections = [Section.objects.get(slug=slug) for slug in SECTIONS]
        self._old = list(Entry.objects.published().filter(section__slug__in=SECTIONS).order_by("pk")[:3])

    def write(self, moment: str = "") -> None:
        """Run one transaction; kill this process in the given moment of its commit."""
        from django.db import transaction

        doomed = self._rng.random() < 1 / 3 and not moment
        try:
            with transaction.atomic():
                self._truth = []
                if moment == UNNUMBERED:
                    transaction.on_commit(die)  # the first one, before livefeed's own
                elif moment == UNTOLD:
                    die_in_place_of_telling()
                self._work()
                time.sleep(self._rng.uniform(0, 0.02))  # transactions overlap, and commit in another order
                self._note()
                if doomed:
                    raise Doomed
        except Doomed:
            pass

    def _work(self) -> None:
        if self._rng.random() < BURSTS:
            self._tick(self._rng.choices(TICKS, k=BURST))
        for _ in range(self._rng.randint(1, 3)):
            step = self._rng.choice([self._tick, self._tick, self._create])
            match self._rng.randrange(6):
                case 0:
                    self._in_savepoint(step, doomed=True)
                case 1:
                    self._in_savepoint(step, doomed=False)
                case _:
                    step()
        if self._rng.random() < 0.2:
            self._edit()

    def _in_savepoint(self, step: Callable[[], None], *, doomed: bool) -> None:
        from django.db import transaction

        before = list(self._truth)
        try:
            with transaction.atomic():
                step()
                if doomed:
                    raise Doomed
        except Doomed:
            self._truth = before

    def _tick(self, topics: Sequence[str] = ()) -> None:
        from livefeed import publish

        for topic in topics or self._rng.sample(TICKS, self._rng.randint(1, 3)):
            key = self._key()
            publish(topic, {"key": key}, type="tick")
            self._truth.append((topic, key, None))

    def _create(self) -> None:
        from project.blog.models import Entry

        section, key = self._rng.choice(self._sections), self._key()
        entry = Entry(title=key, text="Written in a hurry.", author=self._author, section=section)
        entry.status = Entry.Status.PUBLISHED
        entry.save()
        self._committed_on(entry, key)

    def _edit(self) -> None:
        """Change an entry that others change at the same time. The last step: it waits for them, and they for us."""
        entry, key = self._rng.choice(self._old), self._key()
        entry.title = key
        entry.save(update_fields=["title"])
        self._committed_on(entry, key)

    def _committed_on(self, entry: Any, key: str) -> None:
        self._truth += [(topic, key, entry.pk) for topic in ("blog.entry", f"blog.entry:{entry.section.slug}")]

    def _key(self) -> str:
        self._count += 1
        return f"{self.number}.{self._count}"

    def _note(self) -> None:
        from django.db import connection

        topics, keys, entries = zip(*self._truth, strict=True) if self._truth else ((), (), ())
        with connection.cursor() as cursor:
            cursor.execute(INSERT, [time.time(), self.number, list(topics), list(keys), list(entries)])

    def last_word(self) -> None:
        """Publish one more event on every topic."""
        from django.db import transaction

        from livefeed import publish

        with transaction.atomic():
            self._truth = [(topic, self._key(), None) for topic in TOPICS]
            for topic, key, _ in self._truth:
                publish(topic, {"key": key}, type=LAST_WORD)
            self._note()


def die() -> None:
    """End at once, as by a power cut."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_place_of_telling() -> None:
    """Let this process die when it is about to hand its next events to the broker."""
    from livefeed import broker

    broker.send = lambda stretch: die()


def main(number: int, rate: float) -> None:
    django.setup()
    from django.db import Error, connection

    writer = Writer(number)
    print("ready", flush=True)
    due = time.monotonic()
    while True:
        due = max(due + writer._rng.expovariate(rate), time.monotonic() - 1)
        order = _order(max(due - time.monotonic(), 0))
        if order is None:
            return
        if order == LAST_WORD:
            writer.last_word()
            return
        try:
            writer.write(order)
        except Error as error:
            # The database cut the connection: whether the transaction was committed, its table knows.
            print(f"{number}: {error!r}", file=sys.stderr, flush=True)
            connection.close()


def _order(seconds: float) -> str | None:
    """Return the line that comes within so many seconds, "" if none does, None at the end of stdin."""
    readable, _, _ = select.select([0], [], [], seconds)
    return sys.stdin.readline().strip() or None if readable else ""


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
