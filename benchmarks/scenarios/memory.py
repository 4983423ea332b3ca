"""What does an idle reader hold? Memory, threads and database connections, each reader a user of their own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

from benchmarks import peers
from benchmarks.bench import Bench, Plot, Result, Table
from benchmarks.load import Load
from benchmarks.measures import Measure, at_most
from benchmarks.peers import Peer, Server
from benchmarks.processes import Usage

#: Streams that are open before the first look: whatever is made only once is there by then.
FIRST = 200
#: Seconds until what was needed for the connecting is given back.
SETTLED = 3.0

COMPARED = [
    peers.livefeed("uvicorn", BENCH_PUBLIC="0"),
    peers.livefeed("daphne", BENCH_PUBLIC="0"),
    peers.STARLETTE,
]
PEERS = [
    peers.C_WRITER,
    peers.UVLOOP,
    *COMPARED,
    peers.eventstream("uvicorn", BENCH_PUBLIC="0"),
    peers.eventstream("daphne", BENCH_PUBLIC="0"),
    peers.NCHAN_PEER,
    peers.EXPRESS,
    peers.BETTER_SSE,
]


@dataclass
class Looks:
    """What was seen of one peer."""

    points: list[tuple[int, Usage, int]]  #: streams, what they use, database connections

    @property
    def each(self) -> tuple[float, float, float]:
        """KiB, threads and database connections per stream."""
        (few, first, connected), (many, last, more) = self.points[0], self.points[-1]
        used = last.since(first)
        count = many - few
        # A thread or a connection that all share is none per stream.
        threads, connections = (round(each / count, 2) for each in (used.threads - first.threads, more - connected))
        return used.memory / count, threads, connections


def run(bench: Bench) -> Result:
    """Open streams step by step, and look: once, and again at those that are compared."""
    steps = [FIRST, 700, 1200]
    result = Result("memory", str(__doc__).partition("\n")[0])
    table = Table(f"per idle stream, from {steps[0]} to {steps[-1]}", ["KiB", "threads", "database connections"])
    plot = Plot("memory", "Memory against connections", "streams", "MiB of the server", logarithmic=False)
    found: dict[str, list[Looks]] = {}

    def measure(peer: Peer) -> None:
        seen = looks(bench, peer, steps)
        found.setdefault(peer.name, []).append(seen)
        kib, threads, connected = seen.each
        print(f"  {peer.name}: {kib:.1f} KiB, {threads:.2f} threads, {connected:.2f} connections", flush=True)

    for repeat in range(bench.repeats):
        for peer in bench.present(PEERS):
            if repeat == 0 or peer in COMPARED:
                bench.attempt(peer, partial(measure, peer), result)
    for name, seen in found.items():
        table.rows[name] = [Measure.of(column) for column in zip(*(each.each for each in seen), strict=True)]
        plot.lines[name] = [(streams, usage.memory / 1024) for streams, usage, _ in seen[0].points]
    result.tables, result.plots = [table], [plot]
    judge(result, table)
    return result


def judge(result: Result, table: Table) -> None:
    """Compare, as far as both sides were there."""
    ours, theirs = "livefeed, uvicorn", "sse-starlette"
    if ours in table.rows and theirs in table.rows:
        ratio = table.median(ours, "KiB") / table.median(theirs, "KiB")
        result.judge(at_most, 0.75, "memory per idle connection, signed-in user, uvicorn", theirs, ratio)
    for server in ("uvicorn", "daphne"):
        for what in ("threads", "database connections"):
            if (ours := f"livefeed, {server}") in table.rows:
                result.judge(at_most, 0, f"{what} per idle stream, {server}", "none", table.median(ours, what))


def looks(bench: Bench, peer: Peer, steps: list[int]) -> Looks:
    """Return what was seen at each number of streams."""
    points: list[tuple[int, Usage, int]] = []
    request = peer.request(signed_in=peer.site)
    with peer.serve(bench.services, users=steps[-1]) as server, Load(server, request) as load:
        for step in steps:
            load.open(step - load.readers, at_once=16)
            time.sleep(SETTLED)
            points.append((step, server.process.usage(), connections(bench, server)))
    return Looks(points)


def connections(bench: Bench, server: Server) -> int:
    """Return how many connections to its database a server holds."""
    if not server.peer.site:
        return 0
    where = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{server.database}'"
    return int(bench.services.sql("postgres", where))
