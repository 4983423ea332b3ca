"""One fan-out: so many events at such a rate to so many readers, and what it cost the server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.load import Arrivals, Load, percentiles, read_moments
from benchmarks.peers import Server
from benchmarks.places import SCRATCH, python
from benchmarks.processes import Conversation, Usage


@dataclass(frozen=True)
class FanOut:
    """What was measured of one fan-out."""

    arrivals: Arrivals
    usage: Usage
    p50: float  #: milliseconds, from the commit, or from the request to publish, to the socket of a reader
    p99: float
    events: int

    @property
    def cost(self) -> float:
        """CPU microseconds of the server per delivered event."""
        return self.usage.cpu * 1e6 / max(self.arrivals.arrived, 1)

    @property
    def per_core(self) -> float:
        """Deliveries that a core of the server makes in a second of its time."""
        return self.arrivals.arrived / max(self.usage.cpu, 1e-9)

    @property
    def lost(self) -> float:
        """The share of deliveries that never came, in percent."""
        return 100 * self.arrivals.lost / max(self.arrivals.lost + self.arrivals.arrived, 1)

    @property
    def load(self) -> float:
        """The share of its core that the load generator was busy for, in percent."""
        return 100 * self.arrivals.busy / max(self.arrivals.seconds, 1e-9)

    def __str__(self) -> str:
        return f"{self.cost:.1f} µs, p50 {self.p50:.0f} ms, p99 {self.p99:.0f} ms, lost {self.lost:.1f} %"


class Publisher(Conversation):
    """A process that publishes, as a command or a worker does."""

    def __init__(self, env: Mapping[str, str]) -> None:
        super().__init__([python(), "-m", "benchmarks.site.publisher"], env=dict(env))
        self.answer()


@contextmanager
def publishing(server: Server) -> Iterator[Publisher | None]:
    """Start the publisher of a server that is published to from outside."""
    if not server.peer.external:
        yield None
        return
    with Publisher(server.env) as publisher:
        yield publisher


def fan_out(
    server: Server,
    load: Load,
    publisher: Publisher | None,
    *,
    events: int,
    rate: float,
    event_bytes: int = 200,
    topics: str = "news",
    silence: float = 2.0,
) -> FanOut:
    """Publish events and wait until every reader has them, or nothing comes any more."""
    load.expect(events)
    before = server.process.usage()
    if publisher is None:
        load.post(events, rate)
        arrivals = load.wait(silence)
        began = None
    else:
        path = SCRATCH / "commits"
        publisher.tell(f"{events} {rate} {event_bytes} {path} {topics}")
        arrivals = load.wait(silence + 2)
        publisher.answer()
        began = list(read_moments(path))
    usage = server.process.usage().since(before)
    due, moments = load.moments()
    return FanOut(arrivals, usage, *percentiles(began or due, moments), events)
