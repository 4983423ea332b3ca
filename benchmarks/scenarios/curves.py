"""How does it go on with more readers, and with more events a second?"""

from __future__ import annotations

from functools import partial

from benchmarks import peers
from benchmarks.bench import Bench, Plot, Result, Table
from benchmarks.fan_out import FanOut, fan_out, publishing
from benchmarks.load import Load
from benchmarks.measures import Measure
from benchmarks.peers import Peer

PEERS = [
    peers.C_WRITER,
    peers.livefeed("uvicorn"),
    peers.livefeed("daphne"),
    peers.STARLETTE,
    peers.eventstream("uvicorn"),
]
#: Events per second, to a thousand readers; and readers, of two hundred events a second.
RATES = (5, 10, 20, 50, 100, 200)
READERS = (10, 100, 1000, 3000)


def run(bench: Bench) -> Result:
    """Measure each peer along both axes, once."""
    latency = Plot("latency", "Latency against load, 1,000 readers", "events/s offered", "p99, ms")
    throughput = Plot("throughput", "Throughput against readers, 200 events/s", "readers", "deliveries/s per core")
    result = Result("curves", str(__doc__).partition("\n")[0], plots=[latency, throughput])

    def measure(peer: Peer) -> None:
        of_rate, of_readers = by_rate(bench, peer), by_readers(bench, peer)
        latency.lines[peer.name] = [(rate, done.p99) for rate, done in of_rate.items()]
        throughput.lines[peer.name] = [(readers, done.per_core) for readers, done in of_readers.items()]

    for peer in bench.present(PEERS):
        bench.attempt(peer, partial(measure, peer), result)
        print(f"  {peer.name}", flush=True)
    result.tables = [as_table(latency), as_table(throughput)]
    return result


def by_rate(bench: Bench, peer: Peer) -> dict[int, FanOut]:
    """Return what was measured at each rate."""
    with peer.serve(bench.services) as server, Load(server, peer.request()) as load, publishing(server) as publisher:
        load.open(1000, at_once=32)
        fan_out(server, load, publisher, events=5, rate=20)
        seconds = bench.amount(3, 2)
        return {rate: fan_out(server, load, publisher, events=max(20, rate * seconds), rate=rate) for rate in RATES}


def by_readers(bench: Bench, peer: Peer) -> dict[int, FanOut]:
    """Return what was measured with each number of readers."""
    found: dict[int, FanOut] = {}
    with peer.serve(bench.services) as server, Load(server, peer.request()) as load, publishing(server) as publisher:
        for readers in READERS:
            load.open(readers - load.readers, at_once=32)
            fan_out(server, load, publisher, events=5, rate=20)
            found[readers] = fan_out(server, load, publisher, events=bench.amount(400, 300), rate=200)
    return found


def as_table(plot: Plot) -> Table:
    """Return a plot's figures."""
    columns = [f"{x:g}" for x, _ in next(iter(plot.lines.values()), ())]
    rows: dict[str, list[Measure | str]] = {
        name: [Measure.of([y]) for _, y in line] for name, line in plot.lines.items()
    }
    return Table(f"{plot.title}: {plot.y}, by {plot.x}", columns, rows)
