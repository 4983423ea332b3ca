"""One run: some servers, writers and readers in bad weather, then a calm in which everything must come right."""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from django.conf import settings as django_settings
from django.db import connections, transaction

from livefeed import backends, backlog, broker, debts, events, hub, personal_streams, relay, tail, window
from livefeed.publishing import publish
from livefeed.roster import Roster

from .faults import Faults
from .history import ALIAS
from .layer import Layer, LayerClient, current_layer
from .personal import KINDS, personal_feed, personal_topic
from .readers import Reader
from .store import STORE, Store
from .threads import BackgroundThread, Condition
from .world import CURRENT, Process, World
from .writers import Writer

#: Seconds between two looks of a hub, in the simulated world.
LOOK = 1.0
#: Seconds of bad weather, and of the calm after it in which all have to get what they lack.
BAD, CALM = (5.0, 25.0), 150.0
#: Seconds after a commit in which a reader gets an event in fair weather: by the layer, else by a look, or by the
#: second look that sees an event without a number.
BY_LAYER, BY_LOOK, BY_TWO_LOOKS = 0.3, LOOK + 1.0, 2 * LOOK + 1.0


class Scenario:
    """The cast of one run, drawn by its seed."""

    def __init__(self, seed: int) -> None:
        self.world = world = World(seed)
        self.store = STORE[0] = Store(world)
        draw = world.random
        #: The topic that looks different to each reader, if there is one.
        self.personal = personal_topic(seed)
        #: Whether the history is Redis, or else the database.
        self.on_redis = draw.random() < 0.3
        self.layer = Layer(world, tells=draw.random() < 0.5)
        self.topics = ["a", "b", "c"][: draw.randint(1, 3)]
        self.quiet = False
        self._n = 0
        self._names = 0
        self.servers: list[Process] = []
        self.workers: list[Process] = []
        self.readers: list[Reader] = []
        self.writers: list[Writer] = []
        self.sizes = {
            "page": draw.choice((3, 10, 200)),
            "chunk": draw.choice((100, 1000, 65_536)),
            "tail": draw.choice((1500, 5000, 1_000_000)),
            "message": draw.choice((1, 3, 100)),
            "linger": draw.choice((1.0, 30.0)),
            "replay": draw.choice((0, 0, 15)),
            "backlog": draw.choice((10, 10_000)),
            "patience": draw.choice((3.0, 60.0)),
            "unwritten": draw.choice((1, 3, 600)),
            "relay": draw.choice((0.0, 0.01, 0.5)),
        }
        self.faults = Faults(self)

    def next_n(self) -> int:
        self._n += 1
        return self._n

    # -- the cast -------------------------------------------------------------------------------------------------

    def start_server(self) -> None:
        """Start a process that serves streams, and writes too, as views do."""
        server = self._process("server")
        server.loop.call_soon(self._open, server)
        self.servers.append(server)
        if self.world.chance(0.7):
            self._start_writer(server)

    @staticmethod
    def _open(server: Process) -> None:
        server.roster = Roster()

    def start_worker(self) -> None:
        """Start a process that only writes."""
        worker = self._process("worker")
        self.workers.append(worker)
        for _ in range(self.world.random.choice((1, 1, 3))):
            self._start_writer(worker)

    def _start_writer(self, process: Process) -> None:
        self.writers.append(Writer(self, process, pace=self.world.random.choice((0.05, 0.5, 3.0))))

    def _process(self, kind: str) -> Process:
        self._names += 1
        process = Process(self.world, f"{kind} {self._names}", LayerClient(self.layer))
        self.world.tell(f"{process.name} starts")
        return process

    def start_reader(self) -> None:
        draw = self.world.random
        topics = draw.sample(self.topics, draw.randint(1, len(self.topics)))
        kind = draw.choices(("browser", "page", "garbage"), (4, 4, 1))[0]
        number = len(self.readers) + 1
        reader = Reader(self, f"reader {number} of {' '.join(topics)}", topics, kind, number % KINDS)
        self.readers.append(reader)
        self.world.after(draw.uniform(0, 6.0), reader.start)

    def any_server(self) -> Process | None:
        """Return a server that accepts connections, as a load balancer finds one."""
        serving = [server for server in self.servers if server.runs and server.roster is not None]
        open_ones = [server for server in serving if not server.roster.draining]  # type: ignore[union-attr]
        return self.world.random.choice(open_ones) if open_ones else None

    # -- the run --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        draw = self.world.random
        for _ in range(draw.randint(1, 3)):
            self.start_server()
        for _ in range(draw.randint(0, 2)):
            self.start_worker()
        for _ in range(draw.randint(2, 6)):
            self.start_reader()
        self.faults.begin()
        self.world.run(until=lambda: False, limit=draw.uniform(*BAD))
        self.world.tell("the weather clears up")
        self.quiet = True
        self.faults.end()
        self.world.run(until=lambda: False, limit=10.0)  # the reader that comes last begins to read by then
        self._expect(lambda: all(writer.ended for writer in self.writers), CALM, "every writer ends")
        self._expect(lambda: not any(self.store.unnumbered.values()), CALM, "what is committed is numbered")
        self._expect(
            lambda: not any(process.backlog._has_work() for process in self._living()), CALM, "no backlog stays"
        )
        self._check_what_writers_know()
        self._expect(lambda: all(reader.is_complete() for reader in self.readers), CALM, "every reader gets all")
        for reader in self.readers:
            if lacking := reader.lacks():
                self.world.breaks(f"{reader} neither shows nor got {sorted(lacking)[:5]}")
            if phantoms := self.store.doomed & set(reader.got):
                self.world.breaks(f"{reader} got {sorted(phantoms)[:5]}, which were rolled back")
        self._check_memory()
        self._probe("an event in fair weather", BY_LOOK)  # the layer may have forgotten us; this look joins it again
        self._probe("a second event in fair weather", BY_LAYER)
        for survivor in self._living():
            self._probe(f"an event of {survivor.name}, which saw it all", BY_LAYER, survivor)
        if not self.on_redis:
            self.store.kills_next = True
            self._probe("an event whose publisher dies right after its commit", BY_TWO_LOOKS)

    def _living(self) -> list[Process]:
        return [process for process in self.world.processes if process.alive]

    def _check_what_writers_know(self) -> None:
        """What a writer that lives has committed has a number, or its readers were told: its topic has a new epoch.

        And what one writer published on a topic is numbered in that order.
        """
        numbered = {n for _, _, n in self.store.numbers}
        for writer in self.writers:
            for (topic, _), order in self.store.order.items():
                own = list(dict.fromkeys(n for n in reversed(order) if n in writer.topic_of))
                if own != sorted(own, reverse=True):
                    self.world.breaks(f"{writer.process.name} published on {topic} in another order than {own}")
            for n, (topic, moment) in writer.kept.items():
                told = self.store.left_at.get(topic, -1.0) >= moment
                if writer.process.alive and n not in numbered and not told:
                    self.world.breaks(f"{n} on {topic} was committed by {writer.process.name}, and nobody is told")

    def _check_memory(self) -> None:
        """A tail has readers, or its days are counted; and the budget counts what tails hold."""
        for server in self._living():
            if server.roster is not None:
                hub = server.roster.hub
                held = sum(frame.cost for found in hub.tails.values() for frame in found.after(found.start))
                held += sum(len(chunk) for found in hub.tails.values() for chunk, _ in found._chunks.values())
                if held != hub._budget.used:
                    self.world.breaks(f"{server.name} counts {hub._budget.used} bytes in its tails, and holds {held}")
                for topic, found in hub.tails.items():
                    if not found.readers and topic not in hub._idle:
                        self.world.breaks(f"{server.name} keeps {topic} for ever, which nobody reads")

    def _probe(self, what: str, limit: float, publisher: Process | None = None) -> None:
        """Publish on every topic: whoever is connected gets it within so many seconds."""
        self._expect(lambda: all(reader.connected for reader in self.readers), CALM, "every reader is connected")
        self.world.run(until=lambda: False, limit=3.0)
        probes = {topic: self.next_n() for topic in self.topics}
        (publisher or self._process("prober")).start_thread(lambda: _publish_all(probes), "publish")
        waiting = [(reader, n) for reader in self.readers for topic, n in probes.items() if reader.awaits(topic, n)]
        self._expect(lambda: all(n in reader.got for reader, n in waiting), limit, f"{what} arrives within {limit} s")

    def _expect(self, condition: Any, limit: float, what: str) -> None:
        if not self.world.run(until=condition, limit=limit) and not self.world.broken:
            self.world.breaks(f"{what}; not so after {limit} s")


def _publish_all(numbers: dict[str, int]) -> None:
    with transaction.atomic(using=ALIAS):
        for topic, n in numbers.items():
            publish(topic, {"n": n})


def run(seed: int) -> Scenario:
    """Run one seed; what went wrong is in ``scenario.world.broken``."""
    with simulated(seed):
        scenario = Scenario(seed)
        kind = "SimulatedRedisHistory" if scenario.on_redis else "SimulatedHistory"
        django_settings.LIVEFEED_HISTORY = f"tests.simulation.history.{kind}"
        backends._make.cache_clear()
        with sized(scenario.sizes), heard(scenario.world), personal_feed(scenario.personal):
            try:
                scenario.run()
            finally:
                scenario.world.end()
    return scenario


@contextmanager
def simulated(seed: int) -> Iterator[None]:
    """Put the simulated world under livefeed."""
    STORE[:] = [None]  # type: ignore[list-item]
    CURRENT[0] = None
    random.seed(seed)
    ids = random.Random(seed)
    clock = SimpleNamespace(ticks=0)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            clock.ticks += 1
            return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(milliseconds=clock.ticks)

    with ExitStack() as stack:
        for target, name, stand_in in (
            (broker, "channel_layer", current_layer),
            (broker, "_outboxes", broker._outboxes),
            (events, "datetime", Clock),
            (uuid, "uuid4", lambda: uuid.UUID(int=ids.getrandbits(128))),
            (backlog, "threading", SimpleNamespace(Thread=BackgroundThread, Condition=Condition)),
            (backlog, "time", SimpleNamespace(monotonic=lambda: CURRENT[0].world.now)),
            (backlog, "_backlog", backlog._backlog),
            (relay, "threading", SimpleNamespace(Thread=BackgroundThread, Condition=Condition)),
            (relay, "_relay", relay._relay),
        ):
            stack.enter_context(patch.object(target, name, stand_in))
        stack.enter_context(patch("secrets.token_urlsafe", lambda size: f"{ids.getrandbits(40):010x}"))
        backends._make.cache_clear()
        yield
        backends._make.cache_clear()


def set_up() -> None:
    """Tell Django of the simulated database, and livefeed to use it. Once in a process."""
    import django

    django.setup()
    connections.settings[ALIAS] = {
        **connections.settings["default"],
        "ENGINE": "tests.simulation.backend",
        "NAME": ALIAS,
        "OPTIONS": {},
    }
    django_settings.LIVEFEED_DATABASE = ALIAS
    django_settings.LIVEFEED_LEASES = "tests.simulation.history.SimulatedLeases"
    django_settings.LIVEFEED_LOOK_INTERVAL = LOOK
    django_settings.LIVEFEED_KEEPALIVE = 4.0
    django_settings.LIVEFEED_RECHECK_INTERVAL = 1e6


@contextmanager
def sized(sizes: dict[str, Any]) -> Iterator[None]:
    """Make pages, chunks, tails and messages so small that a few events fill them."""
    django_settings.LIVEFEED_TAIL_BYTES = sizes["tail"]
    django_settings.LIVEFEED_MAX_REPLAY = sizes["replay"]
    django_settings.LIVEFEED_RELAY_PAUSE = sizes["relay"]
    with (
        patch.object(hub, "PAGE_EVENTS", sizes["page"]),
        patch.object(hub, "LINGER", sizes["linger"]),
        patch.object(tail, "CHUNK_BYTES", sizes["chunk"]),
        patch.object(window, "CHUNK_BYTES", sizes["chunk"]),
        patch.object(personal_streams, "CHUNK_BYTES", sizes["chunk"]),
        patch.object(personal_streams, "BATCH_EVENTS", sizes["page"]),
        patch.object(broker, "MESSAGE_EVENTS", sizes["message"]),
        patch.object(backlog, "EVENTS", sizes["backlog"]),
        patch.object(backlog, "SECONDS", sizes["patience"]),
        patch.object(debts, "UNWRITTEN", sizes["unwritten"]),
    ):
        yield


@contextmanager
def heard(world: World) -> Iterator[None]:
    """Make what livefeed logs a part of the story."""

    class Teller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            process = CURRENT[0].name if CURRENT[0] else "world"
            error = f" ({record.exc_info[1]!r})" if record.exc_info else ""
            world.tell(f"{process} logs {record.levelname}: {record.getMessage()}{error}")
            if "has a hole" in record.getMessage():
                world.breaks("the history has no holes")

    logger = logging.getLogger("livefeed")
    teller = Teller()
    logger.addHandler(teller)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.removeHandler(teller)
        logger.propagate = propagate
