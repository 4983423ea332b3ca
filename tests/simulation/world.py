"""Time and choice: whose turn it is, and what the time is when nobody can do anything more at this one."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
from collections import deque
from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from livefeed import backlog, broker, relay

from .loop import Loop

if TYPE_CHECKING:
    from livefeed.roster import Roster

    from .layer import LayerClient
    from .threads import Thread

#: Steps after which a run is taken for one that does not end.
MOST_STEPS = 400_000
#: Threads of one process's pool, as livefeed's own.
POOL = 4


class World:
    """The scheduler: a clock, the processes, and one random choice after the other."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now = 0.0
        self.story: list[str] = []
        self.processes: list[Process] = []
        self.steps = 0
        #: What went wrong, in the order in which it did.
        self.broken: list[str] = []
        self._on_step: list[tuple[int, Callable[[], object]]] = []
        #: The simulated thread whose turn it is, or None while an event loop or the world itself runs.
        self.thread: Thread | None = None
        self.baton = threading.Lock()
        self.baton.acquire()
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._count = itertools.count()

    def tell(self, what: str) -> None:
        """Add a line to the story."""
        self.story.append(f"{self.now:9.4f}  {what}")

    def breaks(self, promise: str) -> None:
        """Note that a promise was broken; the run ends."""
        self.tell(f"BROKEN: {promise}")
        self.broken.append(promise)

    def in_steps(self, steps: int, do: Callable[[], object]) -> None:
        """Do something so many steps from now: in the middle of whatever is going on then."""
        self._on_step.append((self.steps + steps, do))
        self._on_step.sort(key=itemgetter(0))

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def after(self, delay: float, do: Callable[[], object]) -> None:
        """Do something in the world itself (no process's) after so many seconds."""
        heapq.heappush(self._timers, (self.now + delay, next(self._count), do))

    def pause(self, condition: Callable[[], bool] | None = None) -> None:
        """Let others go on, if a simulated thread is what runs; wait for a condition, if there is one."""
        if self.thread is not None:
            self.thread.pause(condition)

    def run(self, *, until: Callable[[], bool], limit: float) -> bool:
        """Go on until a condition holds, or for ``limit`` seconds at most; return whether it holds."""
        deadline = self.now + limit
        while not until():
            if self.now > deadline or self.broken:
                return False
            self._step()
        return True

    def _step(self) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            self.breaks(f"a run ends; this one was busy after {MOST_STEPS} steps")
        if self._on_step and self._on_step[0][0] <= self.steps:
            self._on_step.pop(0)[1]()
        runnable = [turn for process in self.processes for turn in process.turns()]
        if runnable:
            process, turn = self.random.choice(runnable) if len(runnable) > 1 else runnable[0]
            process.enter()
            turn()
        else:
            self._advance()

    def _advance(self) -> None:
        times = [process.loop.next_time for process in self.processes if process.runs]
        times += [self._timers[0][0]] if self._timers else []
        time = min((time for time in times if time is not None), default=None)
        if time is None:
            self.breaks("something happens in the end; here nothing ever will")
            return
        self.now = max(self.now, time)
        while self._timers and self._timers[0][0] <= self.now:
            heapq.heappop(self._timers)[2]()
        for process in self.processes:
            if process.runs:
                process.loop.wake(self.now)

    def end(self) -> None:
        """Let every thread and every coroutine come to its end."""
        for process in self.processes:
            process.on_death.clear()
            process.enter()
            process.kill()
            process.loop.abandon()


class Process:
    """An operating system's process: an event loop, some threads, and a memory of its own, which dies with it."""

    def __init__(self, world: World, name: str, layer: LayerClient) -> None:
        self.world = world
        self.name = name
        self.layer = layer
        self.loop = Loop(self)
        self.threads: list[Thread] = []
        self.jobs: deque[Callable[[], None]] = deque()
        self.alive = True
        self.stopped = False
        self.roster: Roster | None = None
        self.outboxes: Any = broker._Outboxes()
        self.outboxes._background = broker.Outbox(self.loop)
        self.backlog = backlog.Backlog()
        self.relay = relay.Relay()
        self.on_death: list[Callable[[], object]] = []
        self._workers = 0
        world.processes.append(self)

    @property
    def runs(self) -> bool:
        return self.alive and not self.stopped

    def turns(self) -> list[tuple[Process, Callable[[], None]]]:
        """Return what could go on here."""
        if not self.runs:
            return []
        turns = [thread.resume for thread in self.threads if thread.runnable]
        if self.loop.ready:
            turns.append(self.loop.run_one)
        return [(self, turn) for turn in turns]

    def enter(self) -> None:
        """Make this process's memory the one that livefeed's modules see, as an operating system does."""
        broker._outboxes = self.outboxes
        backlog._backlog = self.backlog
        relay._relay = self.relay
        CURRENT[0] = self

    def start_thread(self, work: Callable[[], object], name: str) -> Thread:
        from .threads import Thread

        self.threads = [thread for thread in self.threads if not thread.ended]
        thread = Thread(self, work, f"{self.name} {name}")
        self.threads.append(thread)
        return thread

    def submit(self, job: Callable[[], None]) -> None:
        """Give a job to this process's pool of threads."""
        self.jobs.append(job)
        if self._workers < POOL:
            self._workers += 1
            self.start_thread(self._work, f"worker {self._workers}")

    def _work(self) -> None:
        while True:
            self.world.pause(lambda: bool(self.jobs))
            if self.jobs:
                self.jobs.popleft()()

    def kill(self) -> None:
        """End at once, as by SIGKILL: nothing more runs here, and what others lent it falls back to them."""
        if not self.alive:
            return
        self.alive = False
        for note in self.on_death:
            note()
        if self.world.thread is None:
            self._end_threads()
        else:  # a thread that kills its own process can't wait for the others: the world does
            self.world.thread.killed = True
            self.world.in_steps(0, self._end_threads)

    def _end_threads(self) -> None:
        for thread in self.threads:
            thread.kill()


#: The process whose turn it is.
CURRENT: list[Any] = [None]
