"""The demo on real processes while everything around it fails, and the proof that nothing was lost or came twice.

    python -m tests.e2e.faults --readers 200 --deliveries 1000000 --faults 100 --seed 7

Four servers (two Daphne, two uvicorn), PostgreSQL, a private Redis, six writers, and readers behind a TCP proxy that
come back as browsers do. Faults happen in an order that the seed draws, up to two at a time; moments, of course, are
the machine's. In the end every reader must have seen just what was committed on its topics, in order, once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from tests.e2e.fault_reader import Reader
from tests.e2e.fault_site import LAYERS, Site
from tests.e2e.fault_truth import Note, by_topic, committed, differences, leases, stored, unnumbered
from tests.e2e.fault_writer import TABLE, TOPICS
from tests.e2e.servers import manage, site_env
from tests.services import fresh_postgres

AT_A_TIME = 2
LONGEST = 3600.0
POLL_SECONDS = 0.1
PROGRESS_SECONDS = 10.0


@dataclass(frozen=True)
class Plan:
    """What is to happen. `rate` is in transactions a second, `pause` in seconds between two faults, on average,
    `nap` in seconds that a reader may stay away, `limit` in seconds that all may take in the end to arrive.
    """

    readers: int = 200
    deliveries: int = 1_000_000
    faults: int = 100
    seed: int = 0
    layer: str = "pubsub"
    rate: float = 15.0
    pause: float = 3.5
    nap: float = 30.0
    limit: float = 180.0


@dataclass
class Report:
    """What happened. `broken` names every promise that was broken; `delays` are seconds from commit to delivery."""

    plan: Plan
    faults: Counter[str] = field(default_factory=Counter)
    story: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    deliveries: int = 0
    events: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    refusals: int = 0
    resets: int = 0
    delays: tuple[float, float, float] = (0, 0, 0)
    logged: Counter[str] = field(default_factory=Counter)
    seconds: float = 0

    def lines(self) -> Iterator[str]:
        yield f"{self.deliveries:,} deliveries of {self.events:,} events to {self.plan.readers} readers"
        yield f"{self.faults.total()} faults: " + _counts(self.faults)
        yield f"{self.ends.total():,} reconnects, after connections that were: {_counts(self.ends)}"
        yield f"{self.refusals} refusals (told to come back later), {self.resets} resets"
        yield "from commit to delivery: half within {:.3f} s, 99 % within {:.1f} s, all within {:.1f} s".format(
            *self.delays
        )
        yield f"{self.seconds:.0f} s; layer {self.plan.layer}, seed {self.plan.seed}"
        for line, count in self.logged.most_common():
            yield f"logged {count} times: {line}"
        for line in self.broken:
            yield f"BROKEN: {line}"


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items()))


def run(plan: Plan, directory: Path, tell: Callable[[str], None] = lambda line: None) -> Report:
    """Prepare a database of its own, carry out the plan, and return what came of it. `tell` gets the story."""
    with fresh_postgres() as url:
        prepare(url)
        return asyncio.run(Run(plan, url, directory, tell).run())


def prepare(database_url: str) -> None:
    """Make the demo's tables, with topics that never had an event, and that of the writers' notes."""
    manage("demo", env=site_env(database_url=database_url))
    with psycopg.connect(database_url) as connection:
        connection.execute("TRUNCATE livefeed_event, livefeed_topic")
        connection.execute(TABLE.encode())


class Run:
    """One run of a plan."""

    def __init__(self, plan: Plan, database_url: str, directory: Path, tell: Callable[[str], None]) -> None:
        self.plan = plan
        self.report = Report(plan)
        self._url = database_url
        self._tell = tell
        self._began = time.monotonic()
        self._rng = random.Random(plan.seed)
        self._site = Site(database_url, directory, layer=plan.layer, rate=plan.rate, rng=self._rng)
        self._readers: list[Reader] = []

    async def run(self) -> Report:
        try:
            await self._site.start()
            async with self._site.proxy:
                tasks = self._start_readers()
                try:
                    await self._course()
                finally:
                    await _cancel(tasks)
            await self._until(lambda: not leases(self._url), "no connection counts as open")
        finally:
            await asyncio.to_thread(self._site.close)
        await asyncio.to_thread(self._judge)
        return self.report

    async def _course(self) -> None:
        for reader in self._readers:
            await asyncio.wait_for(reader.opened.wait(), self.plan.limit)
        await self._site.start_writers()
        self._say(f"{len(self._readers)} readers, seed {self.plan.seed}, layer {self.plan.layer}")
        await self._attack()
        await self._come_to_rest()

    def _start_readers(self) -> list[asyncio.Task[None]]:
        """Start the readers: half of them with one topic, the others with several."""
        for number in range(self.plan.readers):
            count = 1 if number % 2 else self._rng.randint(2, len(TOPICS))
            rng = random.Random(f"{self.plan.seed} {number}")
            topics = self._rng.sample(TOPICS, count)
            ports = self._site.proxy.ports
            self._readers.append(Reader(f"reader {number}", topics, ports, rng, nap=self.plan.nap))
        return [asyncio.create_task(reader.run()) for reader in self._readers]

    # -- faults ---------------------------------------------------------------------------------------------------

    async def _attack(self) -> None:
        """Let all faults happen, and readers read, until there were as many of both as were asked for."""
        progress = asyncio.create_task(self._tell_progress())
        at_a_time = asyncio.Semaphore(AT_A_TIME)
        try:
            async with asyncio.TaskGroup() as group:
                for kind in self._schedule():
                    await asyncio.sleep(self._rng.uniform(0.5, 1.5) * self.plan.pause)
                    await at_a_time.acquire()
                    group.create_task(self._fault(kind)).add_done_callback(lambda _: at_a_time.release())
            enough = self.plan.deliveries
            await self._until(lambda: self._deliveries() >= enough, f"{enough:,} deliveries", limit=LONGEST)
        finally:
            await _cancel([progress])

    def _schedule(self) -> list[str]:
        """Return as many faults as were asked for: every kind as often as the others, in an order by chance."""
        kinds = list(self._site.kinds)
        rounds = [self._rng.sample(kinds, len(kinds)) for _ in range(-(-self.plan.faults // len(kinds)))]
        return [kind for some in rounds for kind in some][: self.plan.faults]

    async def _fault(self, kind: str) -> None:
        self._say(kind)
        what = await self._site.kinds[kind]()
        self.report.faults[kind] += 1
        self._say(f"{kind}: over ({what})" if what else f"{kind}: over")

    # -- the end --------------------------------------------------------------------------------------------------

    async def _come_to_rest(self) -> None:
        """Wait until everything committed has arrived; then see whether one more event on every topic does.

        What dead writers left without a number the hubs have to find: the last word would number it too.
        """
        await self._site.end_writers()
        if not await self._until(lambda: not unnumbered(self._url), "every committed event has a number"):
            return
        for reader in self._readers:
            reader.reload()
        if await self._arrived("everything has arrived"):
            await self._site.last_word()
            await self._arrived("the last word has arrived")

    async def _arrived(self, what: str) -> bool:
        events = by_topic(await asyncio.to_thread(stored, self._url, TOPICS))
        wanted = {topic: len(events[topic]) for topic in TOPICS}
        waiting = set(self._readers)

        def arrived() -> bool:
            waiting.difference_update([reader for reader in waiting if _has(reader, wanted)])
            return not waiting

        return await self._until(arrived, what, lambda: ", ".join(sorted(reader.name for reader in waiting)))

    async def _until(
        self, holds: Callable[[], bool], what: str, who: Callable[[], str] = lambda: "", *, limit: float | None = None
    ) -> bool:
        """Wait until something holds, and tell whether it does; what does not is a broken promise."""
        limit = limit or self.plan.limit
        deadline = time.monotonic() + limit
        while not await asyncio.to_thread(holds):
            if time.monotonic() > deadline:
                self.report.broken.append(f"after {limit:g} s still not so: {what} {who()}".rstrip())
                return False
            await asyncio.sleep(POLL_SECONDS)
        self._say(what)
        return True

    def _judge(self) -> None:
        report = self.report
        notes = committed(self._url)
        events = stored(self._url, TOPICS)
        report.broken += differences(notes, events, self._readers) + self._site.trouble
        report.deliveries = self._deliveries()
        report.events = len(events)
        report.refusals = sum(reader.refusals for reader in self._readers)
        report.resets = sum(len(reader.resets) for reader in self._readers)
        report.ends = sum((reader.ends for reader in self._readers), Counter())
        report.delays = delays(notes, self._readers)
        report.logged = self._site.logged()
        report.seconds = time.monotonic() - self._began

    # -- the story ------------------------------------------------------------------------------------------------

    def _deliveries(self) -> int:
        return sum(reader.deliveries for reader in self._readers)

    def _say(self, what: str) -> None:
        line = f"{time.monotonic() - self._began:6.1f} s  {what}"
        self.report.story.append(line)
        self._tell(line)

    async def _tell_progress(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            faults = self.report.faults.total()
            self._tell(f"          {self._deliveries():,} deliveries, {faults} faults")


def _has(reader: Reader, wanted: dict[str, int]) -> bool:
    return all(len(seen.keys) >= wanted[topic] for topic, seen in reader.seen.items())


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks; one that had failed by itself is an error here."""
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


def delays(notes: Sequence[Note], readers: Sequence[Reader]) -> tuple[float, float, float]:
    """Return the median, the 99th hundredth and the longest of the seconds from commit to delivery."""
    at = {(note.topic, note.key): note.at for note in notes}
    found = sorted(
        came - at[topic, key]
        for reader in readers
        for topic, seen in reader.seen.items()
        for key, came in zip(seen.keys, seen.times, strict=True)
        if (topic, key) in at
    )
    return (found[len(found) // 2], found[len(found) * 99 // 100], found[-1]) if found else (0, 0, 0)


def main(words: Sequence[str] | None = None) -> int:
    """Carry out a plan from the command line. Exit code 1 tells of a broken promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--readers", type=int, default=Plan.readers, help="default: %(default)s")
    parser.add_argument(
        "--deliveries", type=int, default=Plan.deliveries, help="at least so many; default: %(default)s"
    )
    parser.add_argument("--faults", type=int, default=Plan.faults, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="default: drawn, and told")
    parser.add_argument("--layer", choices=sorted(LAYERS), help="default: in turn, by the seed")
    parser.add_argument("--rate", type=float, default=Plan.rate, help="transactions a second; default: %(default)s")
    parser.add_argument("--pause", type=float, default=Plan.pause, help="seconds between faults; default: %(default)s")
    parser.add_argument("--nap", type=float, default=Plan.nap, help="longest nap of a reader; default: %(default)s s")
    parser.add_argument("--limit", type=float, default=Plan.limit, help="for coming to rest; default: %(default)s s")
    parser.add_argument("--logs", type=Path, help="a directory that keeps the logs of all processes")
    options = vars(parser.parse_args(words))
    logs = options.pop("logs")
    options["layer"] = options["layer"] or sorted(LAYERS)[options["seed"] % len(LAYERS)]
    _allow_many_files()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no process is left behind
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(io.StringIO()):
        if logs:
            logs.mkdir(parents=True, exist_ok=True)
        report = run(Plan(**options), logs or Path(directory), tell=_to_stderr)
    print("\n".join(report.lines()))
    return 1 if report.broken else 0


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _allow_many_files() -> None:
    """Allow this process as many open files as it may have: each reader takes three."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main())
