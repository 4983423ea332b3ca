"""What can the load itself take? Events without a pause, from the fastest server."""

from __future__ import annotations

from benchmarks import peers
from benchmarks.bench import Bench, Result, Table
from benchmarks.fan_out import FanOut, fan_out
from benchmarks.load import Load
from benchmarks.measures import Measure, at_least

READERS = 1000
#: Deliveries that the fan-out offers in a second, at most.
OFFERED = 200 * READERS


def run(bench: Bench) -> Result:
    """Let the server in C write as fast as the load answers, and look how busy each of them is."""
    columns = ["deliveries/s", "load's core busy, %", "the load's time per delivery, µs", "it could take, deliveries/s"]
    result = Result("ceiling", str(__doc__).partition("\n")[0], [Table("the C writer, without a pause", columns)])
    runs = [unpaced(bench) for _ in range(bench.repeats)]
    each = [done.arrivals.busy / max(done.arrivals.arrived, 1) for done in runs]
    result.tables[0].rows[f"{READERS} readers"] = [
        Measure.of(done.arrivals.arrived / done.arrivals.seconds for done in runs),
        Measure.of(done.load for done in runs),
        Measure.of(seconds * 1e6 for seconds in each),
        Measure.of(1 / seconds for seconds in each),
    ]
    could = Measure.of(1 / seconds for seconds in each).median
    result.judge(at_least, 1, "deliveries/s that the load could take", "those that are offered", could / OFFERED)
    return result


def unpaced(bench: Bench) -> FanOut:
    """Return what was measured."""
    peer = peers.C_WRITER
    with peer.serve(bench.services) as server, Load(server, peer.request()) as load:
        load.open(READERS, at_once=64)
        fan_out(server, load, None, events=50, rate=0)
        return fan_out(server, load, None, events=bench.amount(1000, 500), rate=0)
