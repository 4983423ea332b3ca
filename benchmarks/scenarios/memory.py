"""What does an idle reader hold? Memory, threads and database connections, each reader a user of their own."""

from __future__ import annotations

import time
from dataclasses import dataclass

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

PEERS = [
    peers.C_WRITER,
    peers.UVLOOP,
    peers.livefeed("uvicorn", BENCH_PUBLIC="0"),
    peers.livefeed("daphne", BENCH_PUBLIC="0"),
    peers.eventstream("uvicorn", BENCH_PUBLIC="0"),
    peers.eventstream("daphne", BENCH_PUBLIC="0"),
    peers.NCHAN_PEER,
    peers.EXPRESS,
    peers.BETTER_SSE,
    peers.STARLETTE,
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
        return used.memory / count, (used.threads - first.threads) / count, (more - connected) / count


def run(bench: Bench) -> Result:
    """Open streams step by step, and look."""
    steps = [FIRST, 700, 1200, *([] if bench.quick else [2200])]
    result = Result("memory", str(__doc__).partition("\n")[0])
    table = Table(f"per idle stream, from {steps[0]} to {steps[-1]}", ["KiB", "threads", "database connections"])
    plot = Plot("memory", "Memory against connections", "streams", "MiB of the server", logarithmic=False)
    for peer in bench.present(PEERS):
        seen = looks(bench, peer, steps)
        table.rows[peer.name] = [Measure.of([value]) for value in seen.each]
        plot.lines[peer.name] = [(streams, usage.memory / 1024) for streams, usage, _ in seen.points]
        kib, threads, connected = seen.each
        print(f"  {peer.name}: {kib:.1f} KiB, {threads:.2f} threads, {connected:.2f} connections", flush=True)
    result.tables, result.plots = [table], [plot]

    def cell(name: str, column: int) -> float:
        value = table.rows[name][column]
        assert isinstance(value, Measure)
        return value.median

    for server in ("uvicorn", "daphne"):
        ours = f"livefeed, {server}"
        ratio = cell(ours, 0) / cell("sse-starlette", 0)
        if server == "uvicorn":
            what = "memory per idle connection, signed-in user, uvicorn"
            result.verdicts.append(at_most(0.75, what, "sse-starlette", ratio))
        result.verdicts.append(at_most(0, f"threads per idle stream, {server}", "none", cell(ours, 1)))
        result.verdicts.append(at_most(0, f"database connections per idle stream, {server}", "none", cell(ours, 2)))
    return result


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
