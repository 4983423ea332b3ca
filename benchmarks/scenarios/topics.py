"""What do more topics per reader cost? Readers of a shared topic, one of their section, and one of their own."""

from __future__ import annotations

from benchmarks import peers
from benchmarks.bench import Bench, Result, Table
from benchmarks.fan_out import FanOut, fan_out, publishing
from benchmarks.load import Load
from benchmarks.measures import Measure, at_most

READERS = 1000
RATE = 20
QUERIES = {"one topic": "", "three topics": "topic=news:section%m&topic=news:own%d"}


def run(bench: Bench) -> Result:
    """Publish on the topic that all share."""
    runs: dict[str, list[FanOut]] = {name: [] for name in QUERIES}
    for _ in range(bench.repeats):
        for name, query in QUERIES.items():
            runs[name].append(measure(bench, query))
            print(f"  {name}: {runs[name][-1]}", flush=True)
    table = Table(f"{RATE} events/s to {READERS} readers, uvicorn", ["CPU per delivery, µs", "p99, ms", "lost, %"])
    for name, found in runs.items():
        table.rows[name] = [
            Measure.of(each.cost for each in found),
            Measure.of(each.p99 for each in found),
            Measure.of(each.lost for each in found),
        ]
    one, three = (Measure.of(each.cost for each in runs[name]).median for name in QUERIES)
    result = Result("topics", str(__doc__).partition("\n")[0], [table])
    what = "CPU per delivery to readers of three topics each"
    result.verdicts = [at_most(1.4, what, "readers of one topic", three / one)]
    return result


def measure(bench: Bench, query: str) -> FanOut:
    """Return what the fan-out cost."""
    peer = peers.livefeed("uvicorn")
    with peer.serve(bench.services) as server, Load(server, peer.request(query=query)) as load:
        load.open(READERS, at_once=32)
        with publishing(server) as publisher:
            fan_out(server, load, publisher, events=5, rate=RATE)
            return fan_out(server, load, publisher, events=bench.amount(200, 100), rate=RATE)
