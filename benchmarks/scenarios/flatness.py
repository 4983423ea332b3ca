"""Does an event get dearer as a site grows? More topics in a process, more processes, a longer history."""

from __future__ import annotations

import json
from contextlib import ExitStack

from benchmarks import peers
from benchmarks.bench import Bench, Plot, Result, Table
from benchmarks.fan_out import Publisher
from benchmarks.load import Load
from benchmarks.measures import Measure, at_most
from benchmarks.places import SCRATCH
from benchmarks.processes import Pinned, free_port
from tests.processes import accepts

#: Topics of each reader.
TOPICS_EACH = 50
#: How much dearer is still flat: what repeats of the same differ by on a machine that others use too.
FLAT = 1.5
KEEP = json.dumps({"LIVEFEED_RETENTION": 0.0, "LIVEFEED_RETENTION_EVENTS": 0, "LIVEFEED_MAX_REPLAY": 0})


def run(bench: Bench) -> Result:
    """Measure each growth by itself."""
    result = Result("flatness", str(__doc__).partition("\n")[0])
    for what, found in (
        ("topics in a process", {n: topics(bench, n) for n in (50, 1000, *([] if bench.quick else [10_000]))}),
        ("processes", {n: processes(bench, n) for n in (1, 2, 4, 8)}),
        (
            "events in the history",
            {n: history(bench, n) for n in (1000, 100_000, *([] if bench.quick else [1_000_000]))},
        ),
    ):
        table = Table(f"microseconds per event, by {what}", ["writer", "server"])
        plot = Plot(f"flat-{what.partition(' ')[0]}", f"Cost of an event against {what}", what, "µs of CPU per event")
        for size, (writing, serving) in found.items():
            table.rows[f"{size:,}"] = [Measure.of([writing]), Measure.of([serving])]
            print(
                f"  {size} {what}: {writing:.0f} µs of the writer's time, {serving:.0f} µs of a server's CPU",
                flush=True,
            )
        for index, side in enumerate(("writer", "server")):
            plot.lines[side] = [(size, both[index]) for size, both in found.items()]
            ratio = found[max(found)][index] / found[min(found)][index]
            grown = f"{min(found):,} → {max(found):,} {what}, {side}"
            result.verdicts.append(at_most(FLAT, f"cost per event as it grows: {grown}", "the smallest", ratio))
        result.tables.append(table)
        result.plots.append(plot)
    return result


def topics(bench: Bench, count: int) -> tuple[float, float]:
    """Events on topics in turn, each with one reader, who has fifty of them."""
    peer = peers.livefeed("uvicorn")
    names = [f"news:{reader}-{n}" for n in range(TOPICS_EACH) for reader in range(count // TOPICS_EACH)]
    query = "&".join(f"topic=news:%d-{n}" for n in range(TOPICS_EACH))
    with peer.serve(bench.services) as server, Publisher(server.env) as publisher:
        request = peer.request().replace("?topic=news", f"?{query}")
        with Load(server, request) as load:
            load.open(count // TOPICS_EACH, at_once=8)
            publisher.ask(f"50 0 200 {SCRATCH / 'commits'} {' '.join(names[:50])}")
            return per_event(server.process, publisher, bench.amount(1000, 300), " ".join(names[:300]))


def processes(bench: Bench, count: int) -> tuple[float, float]:
    """Events on one topic that is read in several processes."""
    peer = peers.livefeed("uvicorn")
    with peer.serve(bench.services) as server, ExitStack() as stack:
        for number in range(1, count):
            port = free_port()
            words = [word.format(port=port) for word in peer.command]
            more = Pinned(f"{peer.name} {number}", words, ready=lambda port=port: accepts(port), env=server.env)  # type: ignore[misc]
            stack.enter_context(more)
            load = stack.enter_context(Load(peers.Server(peer, more, port, server.env), peer.request()))
            load.open(1)
        stack.enter_context(Load(server, peer.request())).open(1)
        publisher = stack.enter_context(Publisher(server.env))
        publisher.ask(f"50 0 200 {SCRATCH / 'commits'} news")
        return per_event(server.process, publisher, bench.amount(1000, 300), "news", rate=100)


def history(bench: Bench, rows: int) -> tuple[float, float]:
    """Events on a topic that has so many already."""
    peer = peers.livefeed("uvicorn", BENCH_SETTINGS=KEEP)
    with peer.serve(bench.services) as server, Publisher(server.env) as publisher:
        publisher.ask(f"1 0 200 {SCRATCH / 'commits'} news")
        bench.services.sql(server.database, FILL.format(rows=rows))
        with Load(server, peer.request()) as load:
            load.open(1)
            publisher.ask(f"50 0 200 {SCRATCH / 'commits'} news")
            return per_event(server.process, publisher, bench.amount(1000, 300), "news")


FILL = """
INSERT INTO livefeed_event (topic, seq, uid, type, data, size, created_at, numbered_at)
SELECT 'news', n, md5(n::text), 'message', '{{"n":0}}', 7, now(), now() FROM generate_series(2, {rows}) AS n;
UPDATE livefeed_topic SET head = {rows}, moved_at = now() WHERE name = 'news';
ANALYZE livefeed_event;
"""


def per_event(process: Pinned, publisher: Publisher, events: int, topics: str, rate: float = 0) -> tuple[float, float]:
    """Return the microseconds of the writer's CPU and of a server's per event."""
    before, writer_before = process.usage(), publisher.usage()
    publisher.ask(f"{events} {rate} 200 {SCRATCH / 'commits'} {topics}")
    writing = publisher.usage().since(writer_before)
    return writing.cpu * 1e6 / events, process.usage().since(before).cpu * 1e6 / events
