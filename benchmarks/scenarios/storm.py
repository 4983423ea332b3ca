"""What does a deployment cost, after which everybody comes back at once, with a cursor a hundred events back?"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks import peers
from benchmarks.bench import Bench, Result, Table
from benchmarks.fan_out import Publisher
from benchmarks.load import Load
from benchmarks.measures import Measure, at_most
from benchmarks.places import SCRATCH

#: Events that each client missed.
MISSED = 100


def run(bench: Bench) -> Result:
    """Let clients come to a fresh server, with a cursor and without."""
    clients = bench.amount(5000, 1000)
    times: dict[bool, list[float]] = {True: [], False: []}
    reads: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(bench.repeats):
        for behind in (False, True):
            seconds, read = storm(bench, clients, behind=behind)
            times[behind].append(seconds)
            reads[behind].append(read)
            print(
                f"  {'with' if behind else 'without'} a cursor: {seconds:.2f} s, {read} scans of the events", flush=True
            )
    columns = ["seconds until all have their first byte", "scans of the table of events"]
    table = Table(f"{clients} clients at once, uvicorn, PostgreSQL", columns)
    table.rows["without a cursor"] = [Measure.of(times[False]), Measure.of(reads[False])]
    table.rows[f"with a cursor {MISSED} events back"] = [Measure.of(times[True]), Measure.of(reads[True])]
    result = Result("storm", str(__doc__).partition("\n")[0], [table])
    ratio = Measure.of(times[True]).median / Measure.of(times[False]).median
    result.verdicts = [
        at_most(1.5, f"{clients} clients who come back with a cursor: time", "without a cursor", ratio),
        at_most(0.01, "the same: reads of the history per client", "one each", max(reads[True]) / clients),
    ]
    return result


def storm(bench: Bench, clients: int, *, behind: bool) -> tuple[float, int]:
    """Return how long it took until all streams were open, and how often the table of events was read meanwhile."""
    peer = peers.livefeed("uvicorn")
    with peer.serve(bench.services) as server:
        with Publisher(server.env) as publisher:
            cursor = missed(publisher)
        before = scans(bench, server.database)
        headers: Mapping[str, str] = {"Last-Event-ID": cursor} if behind else {}
        with Load(server, peer.request(headers=headers)) as load:
            seconds = load.open(clients, at_once=clients).seconds
        return seconds, scans(bench, server.database) - before


def missed(publisher: Publisher) -> str:
    """Publish twice as many events as are to be missed; return the cursor in their middle."""
    path = SCRATCH / "commits"
    publisher.ask(f"{MISSED} 0 200 {path} news")
    cursor = publisher.ask("cursor news")[0]
    publisher.ask(f"{MISSED} 0 200 {path} news")
    return cursor


def scans(bench: Bench, database: str) -> int:
    """Return how often PostgreSQL has read the table of events, by an index or whole."""
    bench.services.sql(database, "SELECT pg_stat_force_next_flush()")
    where = "SELECT idx_scan + seq_scan FROM pg_stat_user_tables WHERE relname = 'livefeed_event'"
    return int(bench.services.sql(database, where))
