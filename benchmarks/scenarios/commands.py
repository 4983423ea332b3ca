"""Does an event cost the database and Redis more, the more readers there are? Counted exactly."""

from __future__ import annotations

import json

from benchmarks import peers
from benchmarks.bench import Bench, Result, Table
from benchmarks.fan_out import fan_out, publishing
from benchmarks.load import Load
from benchmarks.measures import Measure, at_most

EVENTS = 20
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
    return result


def count(bench: Bench, layer: str, readers: int) -> tuple[float, float]:
    """Return statements and commands per event."""
    peer = peers.livefeed("uvicorn", BENCH_LAYER=layer, BENCH_SETTINGS=json.dumps(QUIET))
    with peer.serve(bench.services) as server, Load(server, peer.request()) as load, publishing(server) as publisher:
        load.open(readers, at_once=16)
        fan_out(server, load, publisher, events=5, rate=RATE)
        bench.services.sql(server.database, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        bench.services.sql(server.database, "SELECT pg_stat_statements_reset()")
        before = bench.services.redis_commands()
        done = fan_out(server, load, publisher, events=EVENTS, rate=RATE, silence=3)
        commands = bench.services.redis_commands() - before
        assert not done.arrivals.lost, done.arrivals
        where = "SELECT sum(calls) FROM pg_stat_statements WHERE query ~ 'livefeed_'"
        statements = int(bench.services.sql(server.database, where) or 0)
    # A redis layer's waiting for messages is asked for every five seconds, and INFO has counted itself.
    return statements / EVENTS, round(commands / EVENTS)
