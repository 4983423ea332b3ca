"""Does an event cost the database and Redis more, the more readers there are? Counted exactly."""

from __future__ import annotations

import json
from collections.abc import Callable

from benchmarks import peers
from benchmarks.bench import Bench, Result, Table
from benchmarks.fan_out import fan_out, publishing
from benchmarks.load import Load
from benchmarks.measures import Measure, at_most
from benchmarks.peers import Server
from benchmarks.places import SCRATCH
from benchmarks.scenarios.flatness import several

#: So many that what Redis is asked by the clock meanwhile is no event's worth.
EVENTS = 100
RATE = 20
#: What happens by the clock and not by the event is left out: looks, leases, re-checks.
QUIET = {"LIVEFEED_LOOK_INTERVAL": 3600.0, "LIVEFEED_LEASE_SECONDS": 36_000.0, "LIVEFEED_RECHECK_INTERVAL": 3600.0}
LAYERS = ("pubsub", "redis")


def run(bench: Bench) -> Result:
    """Count, for several numbers of readers in one process."""
    result = Result("commands", str(__doc__).partition("\n")[0])
    for layer in LAYERS:
        table = Table(f"per event, {layer} layer", ["statements of the database", "commands of Redis"])
        for readers in (1, 100, 1000):
            statements, commands = count(bench, layer, readers)
            table.rows[f"{readers} readers"] = [Measure.of([statements]), Measure.of([commands])]
            print(f"  {layer}, {readers} readers: {statements} statements, {commands} commands", flush=True)
        result.tables.append(table)
        for column, what in enumerate(("statements of the database", "commands of Redis")):
            found = [cell.median for row in table.rows.values() if isinstance(cell := row[column], Measure)]
            same = max(found) / max(min(found), 1e-9)
            result.verdicts.append(at_most(1, f"{what} per event, {layer} layer, 1,000 readers", "1 reader", same))
    by_processes(bench, result)
    return result


def by_processes(bench: Bench, result: Result) -> None:
    """Count, for several processes that read the topic, with the layer whose message goes to all of them at once."""
    table = Table(
        "per event, pubsub layer, by processes that read it", ["statements of the database", "commands of Redis"]
    )
    for processes in (1, 8):
        with several(bench, processes, BENCH_SETTINGS=json.dumps(QUIET)) as (servers, publisher):
            work = f"{EVENTS} {RATE} 200 {SCRATCH / 'commits'} news"
            publisher.ask(work)
            found = counted(bench, servers[0], lambda work=work, publisher=publisher: publisher.ask(work))  # type: ignore[misc]
        table.rows[str(processes)] = [Measure.of([each]) for each in found]
        print(f"  {processes} processes: {found[0]} statements, {found[1]} commands", flush=True)
    result.tables.append(table)
    for what in table.columns:
        same = table.median("8", what) / max(table.median("1", what), 1e-9)
        result.verdicts.append(at_most(1, f"{what} per event, 8 processes", "1 process", same))


def counted(bench: Bench, server: Server, work: Callable[[], object]) -> tuple[float, float]:
    """Return how many statements and commands each of EVENTS took."""
    bench.services.sql(server.database, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    bench.services.sql(server.database, "SELECT pg_stat_statements_reset()")
    before = bench.services.redis_commands()
    work()
    commands = bench.services.redis_commands() - before
    where = "SELECT sum(calls) FROM pg_stat_statements WHERE query ~ 'livefeed_'"
    statements = int(bench.services.sql(server.database, where) or 0)
    # A redis layer's waiting for messages is asked for every five seconds, INFO has counted itself, and who publishes
    # asks in the end whether all is numbered.
    return round(statements / EVENTS), round(commands / EVENTS)


def count(bench: Bench, layer: str, readers: int) -> tuple[float, float]:
    """Return statements and commands per event."""
    peer = peers.livefeed("uvicorn", BENCH_LAYER=layer, BENCH_SETTINGS=json.dumps(QUIET))
    with peer.serve(bench.services) as server, Load(server, peer.request()) as load, publishing(server) as publisher:
        load.open(readers, at_once=16)
        fan_out(server, load, publisher, events=5, rate=RATE)

        def work() -> None:
            done = fan_out(server, load, publisher, events=EVENTS, rate=RATE, silence=3)
            assert not done.arrivals.lost, done.arrivals

        return counted(bench, server, work)
