"""How many can come in a second? Signed-in users, from the connection to the first byte of the stream."""

from __future__ import annotations

from benchmarks import peers
from benchmarks.bench import Bench, Result, Table
from benchmarks.load import Load
from benchmarks.measures import Measure, at_least
from benchmarks.peers import Peer

PEERS = [
    peers.livefeed("uvicorn", BENCH_PUBLIC="0"),
    peers.livefeed("daphne", BENCH_PUBLIC="0"),
    peers.eventstream("uvicorn", BENCH_PUBLIC="0"),
    peers.eventstream("daphne", BENCH_PUBLIC="0"),
    peers.STARLETTE,
]


def run(bench: Bench) -> Result:
    """Open streams, some at a time, on a fresh server each time."""
    streams = bench.amount(1000, 300)
    rates: dict[str, list[float]] = {peer.name: [] for peer in PEERS}
    costs: dict[str, list[float]] = {peer.name: [] for peer in PEERS}
    for _ in range(bench.repeats):
        for peer in PEERS:
            rate, cost = connect(bench, peer, streams)
            rates[peer.name].append(rate)
            costs[peer.name].append(cost)
            print(f"  {peer.name}: {rate:.0f} connections/s, {cost:.2f} ms of CPU each", flush=True)
    table = Table(f"{streams} streams, 32 at a time", ["connections/s", "CPU of the server per connection, ms"])
    for peer in PEERS:
        table.rows[peer.name] = [Measure.of(rates[peer.name]), Measure.of(costs[peer.name])]
    result = Result("connecting", str(__doc__).partition("\n")[0], [table])
    for server in ("uvicorn", "daphne"):
        ours, theirs = f"livefeed, {server}", f"django-eventstream, {server}"
        ratio = Measure.of(rates[ours]).median / Measure.of(rates[theirs]).median
        result.verdicts.append(at_least(2, f"signed-in users who connect, per second, {server}", theirs, ratio))
    return result


def connect(bench: Bench, peer: Peer, streams: int) -> tuple[float, float]:
    """Return how many streams a second were opened, and the milliseconds of CPU time of each."""
    request = peer.request(signed_in=peer.site)
    with peer.serve(bench.services, users=streams + 50) as server, Load(server, request) as load:
        load.open(50, at_once=32)  # whatever is done only once
        bench.services.put_first()
        before = server.process.usage()
        opening = load.open(streams, at_once=32)
        used = server.process.usage().since(before)
    return streams / opening.seconds, used.cpu * 1000 / streams
