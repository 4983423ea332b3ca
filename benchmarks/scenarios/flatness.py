"""Does an event get dearer as a site grows? More topics in a process, more processes, a longer history."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from benchmarks import peers
from benchmarks.bench import Bench, Plot, Result, Table
from benchmarks.fan_out import Publisher
from benchmarks.load import Load
from benchmarks.measures import Measure, at_most
from benchmarks.peers import Server
from benchmarks.places import SCRATCH
from benchmarks.processes import Pinned, free_port
from tests.processes import accepts

#: Topics of each reader, where there are so many.
TOPICS_EACH = 50
#: Events per second: one at a time, so that none of the work is shared by several of them.
RATE = 100
#: Seconds until what came before is done with.
SETTLED = 1.5
#: Topics that events are published on in turn, of however many there are.
IN_TURN = 300
#: How much dearer is still flat: what repeats of the same differ by on a machine that others use too.
FLAT = 1.5
KEEP = json.dumps({"LIVEFEED_RETENTION": 0.0, "LIVEFEED_RETENTION_EVENTS": 0, "LIVEFEED_MAX_REPLAY": 0})

#: The microseconds of CPU time that an event took, by who spent them.
Costs = dict[str, float]


def run(bench: Bench) -> Result:
    """Measure each growth by itself, all sizes of it once before any of them again."""
    result = Result("flatness", str(__doc__).partition("\n")[0])
    last = [] if bench.quick else [1_000_000]
    for what, measure, sizes in (
        ("topics in a process", topics, [1, 50, 1000, 10_000]),
        ("processes", processes, [1, 2, 4, 8]),
        ("events in the history", history, [1000, 100_000, *last]),
    ):
        found: dict[int, list[Costs]] = {size: [] for size in sizes}
        for repeat in range(bench.repeats):
            for size in sizes:
                if repeat and size not in (sizes[0], sizes[-1]):
                    continue  # only the ends are compared
                found[size].append(measure(bench, size))
                costs = ", ".join(f"{who} {cost:.0f}" for who, cost in found[size][-1].items())
                print(f"  {size} {what}: µs of CPU per event: {costs}", flush=True)
        report(result, what, found)
    return result


def report(result: Result, what: str, found: dict[int, list[Costs]]) -> None:
    """Make a table and a plot of one growth, and compare its ends."""
    sides = list(next(iter(found.values()))[0])
    table = Table(f"microseconds of CPU per event, by {what}", sides)
    for size, runs in found.items():
        table.rows[f"{size:,}"] = [Measure.of(costs[side] for costs in runs) for side in sides]
    plot = Plot(f"flat-{what.partition(' ')[0]}", f"Cost of an event against {what}", what, "µs of CPU per event")
    smallest, largest = f"{min(found):,}", f"{max(found):,}"
    for side in sides:
        plot.lines[side] = [(size, table.median(f"{size:,}", side)) for size in found]
        if side not in SHOWN_ONLY:
            ratio = table.median(largest, side) / table.median(smallest, side)
            grown = f"cost per event as it grows: {smallest} → {largest} {what}, {side}"
            result.judge(at_most, FLAT, grown, "the smallest", ratio)
    result.tables.append(table)
    result.plots.append(plot)


def topics(bench: Bench, count: int) -> Costs:
    """Events on topics in turn, each with one reader, who has up to fifty of them."""
    peer, each = peers.livefeed("uvicorn"), min(count, TOPICS_EACH)
    names = [f"news:{reader}-{n}" for n in range(each) for reader in range(count // each)]
    query = "&".join(f"topic=news:%d-{n}" for n in range(each))
    with peer.serve(bench.services) as server, Publisher(server.env) as publisher:
        request = peer.request().replace("?topic=news", f"?{query}")
        with Load(server, request) as load:
            load.open(count // each, at_once=8)
            in_turn = " ".join(names[:IN_TURN])
            publisher.ask(f"{2 * IN_TURN} 0 200 {SCRATCH / 'commits'} {in_turn}")  # a topic's first event makes it
            return per_event([server.process], publisher, bench.amount(300, 200), in_turn)


ONE, ALL = "one server, while the others are stopped", "each server, all at once on one core"
#: Eight processes that wake each other up on one core find nothing of theirs in its caches: that is the core's measure.
SHOWN_ONLY = (ALL,)


def processes(bench: Bench, count: int) -> Costs:
    """Events on one topic that is read in several processes: what one of them does for it, and what all do."""
    with several(bench, count) as (servers, publisher):
        events, first, others = bench.amount(300, 200), servers[0].process, [each.process for each in servers[1:]]
        publisher.ask(f"50 0 200 {SCRATCH / 'commits'} news")
        together = per_event([server.process for server in servers], publisher, events, "news")
        for other in others:
            other.pause()
        alone = per_event([first], publisher, events, "news")
        for other in others:
            other.go_on()
    return {"writer": alone["writer"], ONE: alone["server"], ALL: together["server"]}


@contextmanager
def several(bench: Bench, count: int, **env: str) -> Iterator[tuple[list[Server], Publisher]]:
    """Run servers of one site with a reader each, and a process that publishes."""
    peer = peers.livefeed("uvicorn", **env)
    with peer.serve(bench.services) as server, ExitStack() as stack:
        servers = [server]
        for number in range(1, count):
            port = free_port()
            words = [word.format(port=port) for word in peer.command]
            more = Pinned(f"{peer.name} {number}", words, ready=partial(accepts, port), env=server.env)
            servers.append(Server(peer, stack.enter_context(more), port, server.env))
        for each in servers:
            stack.enter_context(Load(each, peer.request())).open(1)
        yield servers, stack.enter_context(Publisher(server.env))


def history(bench: Bench, rows: int) -> Costs:
    """Events on a topic that has so many already."""
    peer = peers.livefeed("uvicorn", BENCH_SETTINGS=KEEP)
    with peer.serve(bench.services) as server, Publisher(server.env) as publisher:
        publisher.ask(f"1 0 200 {SCRATCH / 'commits'} news")
        bench.services.sql(server.database, FILL.format(rows=rows))
        with Load(server, peer.request()) as load:
            load.open(1)
            publisher.ask(f"50 0 200 {SCRATCH / 'commits'} news")
            return per_event([server.process], publisher, bench.amount(300, 200), "news")


FILL = """
INSERT INTO livefeed_event (topic, seq, uid, type, data, size, created_at, numbered_at)
SELECT 'news', n, md5(n::text), 'message', '{{"n":0}}', 7, now(), now() FROM generate_series(2, {rows}) AS n;
UPDATE livefeed_topic SET head = {rows}, moved_at = now() WHERE name = 'news';
ANALYZE livefeed_event;
"""


def per_event(servers: Sequence[Pinned], publisher: Publisher, events: int, topics: str) -> Costs:
    """Return what an event takes of the writer's time, and of a server's, on average over these."""
    time.sleep(SETTLED)
    before, writer_before = [server.usage() for server in servers], publisher.usage()
    publisher.ask(f"{events} {RATE} 200 {SCRATCH / 'commits'} {topics}")
    writing = publisher.usage().since(writer_before).cpu
    serving = sum(server.usage().since(was).cpu for server, was in zip(servers, before, strict=True)) / len(servers)
    return {"writer": writing * 1e6 / events, "server": serving * 1e6 / events}
