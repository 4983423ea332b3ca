"""Writers: transactions that publish, roll back, nest, overlap and die."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from django.db import DatabaseError, connections, transaction

from livefeed.publishing import publish

from .history import ALIAS

if TYPE_CHECKING:
    from .scenario import Scenario
    from .world import Process


class Doomed(Exception):
    """Roll this transaction back."""


class Writer:
    """A thread of a process that commits one transaction after the other."""

    def __init__(self, scenario: Scenario, process: Process, pace: float) -> None:
        self.scenario = scenario
        self.world = scenario.world
        self.process = process
        self._pace = pace
        self._published: list[int] = []
        #: Where it published what: "n", its topic.
        self.topic_of: dict[int, str] = {}
        #: What this writer committed, and knows it: "n", its topic, and a moment before.
        self.kept: dict[int, tuple[str, float]] = {}
        self._thread = process.start_thread(self._run, "writer")

    @property
    def ended(self) -> bool:
        return self._thread.ended

    def _run(self) -> None:
        while not self.scenario.quiet:
            self._sleep(self.world.random.expovariate(1 / self._pace))
            before, began = len(self._published), self.world.now
            with suppress(Doomed, DatabaseError):
                self._write()
                self._keep(before, began)
        connections[ALIAS].close()

    def _keep(self, before: int, began: float) -> None:
        """Note what is committed now and has to reach the history, if this process lives."""
        for n in self._published[before:]:
            if n not in self.scenario.store.doomed:
                self.kept[n] = (self.topic_of[n], began)

    def _sleep(self, seconds: float) -> None:
        due = self.world.now + seconds
        self.world.after(seconds, lambda: None)  # so that the clock stops there
        self.world.pause(lambda: self.world.now >= due)

    def _write(self) -> None:
        if self.world.chance(0.3):
            self._publish()
            return
        with self._kept_or_doomed():
            for _ in range(self.world.random.choice((1, 1, 2, 5))):
                self._publish()
                if self.world.chance(0.2):
                    self._nested()
                if self.world.chance(0.1):
                    self._sleep(self.world.random.uniform(0, 3.0))
            if self.world.chance(0.25):
                raise Doomed

    def _nested(self) -> None:
        with suppress(Doomed), self._kept_or_doomed():
            self._publish()
            if self.world.chance(0.5):
                raise Doomed

    @contextmanager
    def _kept_or_doomed(self) -> Iterator[None]:
        """Hold a transaction, or a savepoint of one; note what was published in it if it is rolled back."""
        before = len(self._published)
        try:
            with transaction.atomic(using=ALIAS):
                yield
        except (Doomed, DatabaseError):
            self.scenario.store.doomed.update(self._published[before:])
            raise

    def _publish(self) -> None:
        topic = self.world.random.choice(self.scenario.topics)
        self._published.append(self.scenario.next_n())
        self.topic_of[self._published[-1]] = topic
        publish(topic, {"n": self._published[-1], "text": "x" * self.world.random.choice((0, 10, 400))})
