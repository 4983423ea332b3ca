"""How dear is a delivery? Events to a thousand readers of one topic, one at a time and under load."""

from __future__ import annotations

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
OURS = [
    peers.livefeed("uvicorn"),
    peers.livefeed("daphne"),
    peers.livefeed_inside("uvicorn"),
    peers.livefeed_inside("daphne"),
]
DJANGO = [
    peers.eventstream("uvicorn"),
    peers.eventstream("daphne"),
    peers.eventstream_inside("uvicorn"),
    peers.eventstream_inside("daphne"),
]
OTHERS = [peers.NCHAN_PEER, peers.EXPRESS, peers.BETTER_SSE, peers.STARLETTE]
MEMBERS = [peers.member("pubsub"), peers.member("redis"), peers.member("memory")]

Runs = dict[str, dict[int, list[FanOut]]]


def run(bench: Bench) -> Result:
    """Measure every peer at both rates, all of them once before any of them again."""
    found = bench.present([*FLOORS, *OURS, *DJANGO, *OTHERS, *MEMBERS])
    runs: Runs = {peer.name: {SLOW: [], FAST: []} for peer in found}
    for repeat in range(bench.repeats):
        for peer in found:
            if peer not in MEMBERS or repeat == 0:  # these take minutes
                measure(bench, peer, runs)
    result = Result("fanout", str(__doc__).partition("\n")[0])
    result.tables = [table(runs, SLOW, "one event at a time"), table(runs, FAST, "under load")]
    judge(result, runs)
    return result


def measure(bench: Bench, peer: Peer, runs: Runs) -> None:
    """Run one peer at both rates."""
    events = {SLOW: bench.amount(200, 60), FAST: bench.amount(1000, 300)}
    if peer in MEMBERS:
        events = {SLOW: 20, FAST: 100}
    with peer.serve(bench.services) as server, Load(server, peer.request()) as load, publishing(server) as publisher:
        load.open(READERS, at_once=32)
        fan_out(server, load, publisher, events=5, rate=SLOW)  # whatever is done only once
        for rate, count in events.items():
            done = fan_out(server, load, publisher, events=count, rate=rate)
            runs[peer.name][rate].append(done)
            print(
                f"  {peer.name}, {rate}/s: {done.cost:.1f} µs, p99 {done.p99:.0f} ms, lost {done.lost:.1f} %",
                flush=True,
            )


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

    def median(name: str, rate: int, figure: str) -> float:
        return Measure.of(getattr(each, figure) for each in runs[name][rate]).median

    for server in ("uvicorn", "daphne"):
        ours, theirs = f"livefeed, {server}", f"django-eventstream, {server}"
        what = f"deliveries/s per core under load, {server}"
        fast = median(ours, FAST, "per_core")
        lost = sum(each.arrivals.lost for each in runs[ours][FAST])
        result.verdicts += [
            at_least(1.2, what, "C writer", fast / median("C writer", FAST, "per_core")),
            at_least(8, what, theirs, fast / median(theirs, FAST, "per_core"), f"{lost} deliveries lost"),
        ]
    slow = median("livefeed, uvicorn", SLOW, "cost")
    result.verdicts += [
        at_most(
            2.0,
            "CPU per delivery, one event at a time, uvicorn",
            "uvloop writer",
            slow / median("uvloop writer", SLOW, "cost"),
        ),
        at_most(
            0.7,
            "CPU per delivery, one event at a time, daphne",
            "django-eventstream, daphne",
            median("livefeed, daphne", SLOW, "cost") / median("django-eventstream, daphne", SLOW, "cost"),
        ),
    ]
    p99 = median("livefeed, uvicorn", SLOW, "p99")
    what = "p99 from commit to socket, one event at a time, uvicorn"
    result.verdicts += [
        at_most(0.3, what, "django-eventstream, uvicorn", p99 / median("django-eventstream, uvicorn", SLOW, "p99")),
        at_most(1.0, what, "sse-starlette", p99 / median("sse-starlette", SLOW, "p99")),
    ]
