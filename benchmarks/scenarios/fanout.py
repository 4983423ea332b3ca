"""How dear is a delivery? Events to a thousand readers of one topic, one at a time and under load."""

from __future__ import annotations

from functools import partial

from benchmarks import peers
from benchmarks.bench import Bench, Result, Table
from benchmarks.fan_out import FanOut, fan_out, publishing
from benchmarks.load import Load
from benchmarks.measures import Measure, at_least, at_most
from benchmarks.peers import Peer

READERS = 1000
#: Events per second: one at a time, and more than most can take.
SLOW, FAST = 20, 200

FLOORS = [peers.C_WRITER, peers.UVLOOP]
OURS = [peers.livefeed("uvicorn"), peers.livefeed("daphne")]
DJANGO = [peers.eventstream("uvicorn"), peers.eventstream("daphne")]
INSIDE = [
    make(server) for make in (peers.livefeed_inside, peers.eventstream_inside) for server in ("uvicorn", "daphne")
]
OTHERS = [peers.NCHAN_PEER, peers.EXPRESS, peers.BETTER_SSE, peers.STARLETTE]
MEMBERS = [peers.member("pubsub"), peers.member("redis"), peers.member("memory")]

Runs = dict[str, dict[int, list[FanOut]]]


def run(bench: Bench) -> Result:
    """Measure every peer at both rates, all of them once before any of them again."""
    result = Result("fanout", str(__doc__).partition("\n")[0])
    found = bench.present([*FLOORS, *OURS, *DJANGO, *OTHERS, *INSIDE, *MEMBERS])
    runs: Runs = {peer.name: {SLOW: [], FAST: []} for peer in found}
    for repeat in range(bench.repeats):
        for peer in list(found):
            if repeat and peer in [*INSIDE, *MEMBERS]:
                continue  # nothing is held to these, and the last take minutes
            if not bench.attempt(peer, partial(measure, bench, peer, runs), result):
                found.remove(peer)
    runs = {name: of_rate for name, of_rate in runs.items() if all(of_rate.values())}
    result.tables = [table(runs, SLOW, "one event at a time"), table(runs, FAST, "under load")]
    judge(result, runs)
    return result


def measure(bench: Bench, peer: Peer, runs: Runs) -> None:
    """Run one peer at both rates."""
    events = {SLOW: bench.amount(100, 60), FAST: bench.amount(600, 300)}
    if peer in MEMBERS:
        events = {SLOW: 20, FAST: 100}
    with peer.serve(bench.services) as server, Load(server, peer.request()) as load, publishing(server) as publisher:
        load.open(READERS, at_once=32)
        fan_out(server, load, publisher, events=5, rate=SLOW)  # whatever is done only once
        for rate, count in events.items():
            done = fan_out(server, load, publisher, events=count, rate=rate)
            runs[peer.name][rate].append(done)
            print(f"  {peer.name}, {rate}/s: {done}", flush=True)


def table(runs: Runs, rate: int, what: str) -> Table:
    """Return the figures at one rate."""
    columns = [
        "CPU per delivery, µs",
        "of it the kernel's, µs",
        "deliveries/s per core",
        "p50, ms",
        "p99, ms",
        "lost, %",
        "pieces per delivery",
        "load's core busy, %",
    ]
    made = Table(f"{rate} events/s of 200 B to {READERS} readers: {what}", columns)
    for name, of_rate in runs.items():
        done = of_rate[rate]
        made.rows[name] = [
            Measure.of(each.cost for each in done),
            Measure.of(each.usage.system * 1e6 / max(each.arrivals.arrived, 1) for each in done),
            Measure.of(each.per_core for each in done),
            Measure.of(each.p50 for each in done),
            Measure.of(each.p99 for each in done),
            Measure.of(each.lost for each in done),
            Measure.of(each.arrivals.reads / max(each.arrivals.arrived, 1) for each in done),
            Measure.of(each.load for each in done),
        ]
    return made


def judge(result: Result, runs: Runs) -> None:
    """Compare, as far as both sides were there."""

    def ratio(mine: str, other: str, rate: int, figure: str) -> float | None:
        if mine not in runs or other not in runs:
            return None
        one, two = (Measure.of(getattr(each, figure) for each in runs[name][rate]).median for name in (mine, other))
        return one / two

    for server in ("uvicorn", "daphne"):
        ours, theirs = f"livefeed, {server}", f"django-eventstream, {server}"
        what = f"deliveries/s per core under load, {server}"
        lost = sum(each.arrivals.lost for each in runs[ours][FAST]) if ours in runs else 0
        note = f"{lost} deliveries lost"
        result.judge(at_least, 1.2, what, "C writer", ratio(ours, "C writer", FAST, "per_core"))
        result.judge(at_least, 8, what, theirs, ratio(ours, theirs, FAST, "per_core"), note)
    what, ours = "CPU per delivery, one event at a time", "livefeed, uvicorn"
    result.judge(at_most, 2.0, f"{what}, uvicorn", "uvloop writer", ratio(ours, "uvloop writer", SLOW, "cost"))
    theirs = "django-eventstream, daphne"
    result.judge(at_most, 0.7, f"{what}, daphne", theirs, ratio("livefeed, daphne", theirs, SLOW, "cost"))
    what, theirs = "p99 from commit to socket, one event at a time, uvicorn", "django-eventstream, uvicorn"
    result.judge(at_most, 0.3, what, theirs, ratio(ours, theirs, SLOW, "p99"))
    result.judge(at_most, 1.0, what, "sse-starlette", ratio(ours, "sse-starlette", SLOW, "p99"))
