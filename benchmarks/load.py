"""The load: one program in C that holds all streams and writes down when what arrived (``native/load.c``)."""

from __future__ import annotations

import statistics
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import Server
from benchmarks.places import BIN, SCRATCH
from benchmarks.processes import Conversation


@dataclass(frozen=True)
class Opening:
    """How long it took until so many streams had their first byte."""

    streams: int
    seconds: float
    bytes: int


@dataclass(frozen=True)
class Arrivals:
    """What arrived of the events that were expected by every reader."""

    arrived: int
    lost: int
    doubled: int
    disordered: int
    reads: int  #: recv() calls: how many pieces it came in
    busy: float  #: CPU seconds of the load itself
    seconds: float


class Load(Conversation):
    """The readers of one server."""

    def __init__(self, server: Server, request: str, *, event_bytes: int = 200) -> None:
        super().__init__([str(BIN / "load"), str(server.port), str(event_bytes), server.peer.publish, request])
        self.readers = 0
        self._events = 0

    def open(self, streams: int, at_once: int = 64) -> Opening:
        """Open streams; come back when each has the first byte of its body."""
        _, count, seconds, size = self.ask(f"open {streams} {at_once}")
        self.readers += streams
        return Opening(int(count), float(seconds), int(size))

    def expect(self, events: int) -> None:
        """Write down from now on when events 1 to ``events`` arrive."""
        self._events = events
        self.ask(f"expect {events}")

    def post(self, events: int, rate: float) -> None:
        """Begin to post events to the server; they are posted during :meth:`wait`."""
        self.ask(f"post {events} {rate}")

    def wait(self, silence: float = 2.0) -> Arrivals:
        """Wait until everything is here, or nothing has come for so many seconds."""
        words = self.ask(f"wait {silence}")[1:]
        return Arrivals(*map(int, words[:5]), *map(float, words[5:]))  # type: ignore[arg-type]

    def moments(self) -> tuple[list[int], list[Sequence[int]]]:
        """Return when each event was due to be posted (0: not by us), and when it arrived at each reader (0: never)."""
        path = SCRATCH / "moments"
        self.ask(f"save {path}")
        moments, width = read_moments(path), 1 + self.readers
        rows = [moments[start : start + width] for start in range(0, len(moments), width)]
        path.unlink()
        return [row[0] for row in rows], [row[1:] for row in rows]

    def close(self) -> None:
        """Close all streams."""
        self.ask("close")
        self.readers = 0


def read_moments(path: Path) -> array[int]:
    """Return the moments that a file holds."""
    moments = array("Q")
    moments.frombytes(path.read_bytes())
    return moments


def percentiles(began: Sequence[int], arrived: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Return the median and the 99th percentile of the milliseconds until an event was at a reader."""
    delays = [(at - start) / 1e6 for start, row in zip(began, arrived, strict=True) for at in row if at]
    if len(delays) < 2:
        return 0.0, 0.0
    cuts = statistics.quantiles(delays, n=100)
    return cuts[49], cuts[98]
