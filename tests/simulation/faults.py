"""What goes wrong: processes, the layer, the database, the network; some of it in each run, at random moments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from .layer import Weather

if TYPE_CHECKING:
    from .scenario import Scenario
    from .world import Process

#: Seconds between two faults, on average.
EVERY = 1.0
#: Steps within which a process is killed: in the middle of anything.
STEPS = 60


class Faults:
    """The faults of one run."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._world = world = scenario.world
        self.counts: Counter[str] = Counter()
        kinds = [name for name in vars(Faults) if name.startswith("fault_") and self._can_happen(name)]
        chosen = [name for name in kinds if world.chance(0.4)]
        self._kinds = chosen
        self._over = False
        self._backup: object = None

    def _can_happen(self, name: str) -> bool:
        if self._scenario.on_redis:
            return name not in {"fault_backup", "fault_die_after_commit"}
        return name not in {"fault_flush", "fault_answers_lost"}

    def begin(self) -> None:
        if self._kinds:
            self._world.after(self._world.random.expovariate(1 / EVERY), self._strike)

    def _strike(self) -> None:
        if self._over:
            return
        name = self._world.random.choice(self._kinds)
        self.counts[name.removeprefix("fault_")] += 1
        getattr(self, name)()
        self.begin()

    def end(self) -> None:
        """Mend everything."""
        self._over = True
        scenario = self._scenario
        scenario.layer.weather = Weather()
        scenario.store.away = scenario.store.kills_next = False
        scenario.store.deafness = 0.0
        self._layer_is_back()
        for process in scenario.servers + scenario.workers:
            process.stopped = False
        scenario.start_server()  # those that are left may have been told to end
        for reader in scenario.readers:
            reader.flakiness = 0.0
            reader.read_on()

    def _for_a_while(self, longest: float, undo: Callable[[], object]) -> None:
        self._world.after(self._world.random.uniform(0, longest), lambda: self._over or undo())

    # -- processes ------------------------------------------------------------------------------------------------

    def fault_kill_server(self) -> None:
        self._kill(self._scenario.servers, self._scenario.start_server)

    def fault_kill_worker(self) -> None:
        self._kill(self._scenario.workers, self._scenario.start_worker)

    def fault_die_after_commit(self) -> None:
        self._scenario.store.kills_next = True
        self._world.after(self._world.random.uniform(0, 3.0), self._scenario.start_worker)

    def _kill(self, processes: list[Process], start: Callable[[], None]) -> None:
        living = [process for process in processes if process.alive]
        if living:
            victim = self._world.random.choice(living)
            self._world.in_steps(self._world.random.randint(0, STEPS), lambda: self._die(victim))
            self._world.after(self._world.random.uniform(0, 3.0), start)

    def _die(self, victim: Process) -> None:
        if victim.alive:
            self._world.tell(f"{victim.name} is killed")
            victim.kill()

    def fault_stop_server(self) -> None:
        server = self._world.random.choice(self._scenario.servers)
        self._world.tell(f"{server.name} is stopped")
        server.stopped = True
        self._for_a_while(8.0, lambda: setattr(server, "stopped", False))

    def fault_deploy(self) -> None:
        living = [server for server in self._scenario.servers if server.runs and server.roster is not None]
        if living:
            server = self._world.random.choice(living)
            self._world.tell(f"{server.name} is told to end")
            server.loop.call_soon(self._drain, server)
            self._world.after(4.0, lambda: self._die(server))
            self._scenario.start_server()

    @staticmethod
    def _drain(server: Process) -> None:
        if server.roster is not None:
            server.loop.create_task(server.roster.drain(3.0))

    # -- the layer ------------------------------------------------------------------------------------------------

    def fault_layer_restart(self) -> None:
        self._scenario.layer.restart()

    def fault_layer_forgets(self) -> None:
        self._scenario.layer.forget()

    def fault_layer_down(self) -> None:
        self._scenario.layer.restart()
        self._scenario.layer.up = False
        self._world.tell("the layer is down")
        self._for_a_while(5.0, self._layer_is_back)

    def fault_layer_hangs(self) -> None:
        self._scenario.layer.hangs = True
        self._world.tell("the layer hangs")
        self._for_a_while(8.0, self._layer_is_back)

    def _layer_is_back(self) -> None:
        layer = self._scenario.layer
        if not layer.up or layer.hangs:
            layer.up, layer.hangs = True, False
            self._world.tell("the layer is back")
            layer.restart()

    def fault_layer_weather(self) -> None:
        draw = self._world.random
        loss, doubling = draw.choice((0.0, 0.1, 0.5, 1.0)), draw.choice((0.0, 0.3))
        self._scenario.layer.weather = Weather(loss, doubling, draw.choice((0.01, 0.5, 4.0)))
        self._world.tell(f"the layer has {self._scenario.layer.weather}")

    # -- the network ----------------------------------------------------------------------------------------------

    def fault_cut(self) -> None:
        self._world.random.choice(self._scenario.readers).disturb("cut")

    def fault_silence(self) -> None:
        self._world.random.choice(self._scenario.readers).disturb("go_silent")

    def fault_flaky_network(self) -> None:
        for reader in self._scenario.readers:
            reader.flakiness = self._world.random.choice((0.0, 0.05, 0.5))
            self._world.tell(f"{reader} loses a chunk with the probability {reader.flakiness}")

    def fault_stall(self) -> None:
        reader = self._world.random.choice(self._scenario.readers)
        self._world.tell(f"{reader} does not read")
        reader.stall(self._world.random.uniform(0, 20.0))

    def fault_cut_all(self) -> None:
        for reader in self._scenario.readers:
            reader.disturb("cut")

    # -- the database ---------------------------------------------------------------------------------------------

    def fault_database_away(self) -> None:
        self._world.tell("the database is away, and Redis with it")
        self._scenario.store.away = True
        self._for_a_while(6.0, lambda: setattr(self._scenario.store, "away", False))

    def fault_flush(self) -> None:
        for reader in self._scenario.readers:
            reader.sees_a_flush()
        self._scenario.store.flush()

    def fault_answers_lost(self) -> None:
        self._world.tell("answers of the history are lost")
        self._scenario.store.deafness = 0.5
        self._for_a_while(8.0, lambda: setattr(self._scenario.store, "deafness", 0.0))

    def fault_trim(self) -> None:
        for name, topic in self._scenario.store.topics.items():
            self._scenario.store.trim(name, self._world.random.randint(topic.floor, topic.head.seq))

    def fault_new_epoch(self) -> None:
        for name in list(self._scenario.store.topics):
            self._scenario.store.renew_epoch(name)

    def fault_backup(self) -> None:
        store = self._scenario.store
        if self._backup is None:
            self._backup = store.backup()
        else:
            store.restore(self._backup)
            self._backup = None
