"""Where does a delivery's time go? A sample of the server's stack a thousand times a second, during a fan-out."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from pathlib import Path

from benchmarks import peers
from benchmarks.bench import Bench, Result, Table
from benchmarks.fan_out import fan_out, publishing
from benchmarks.load import Load
from benchmarks.measures import Measure
from benchmarks.places import LOAD_CORE, PYTHON, SCRATCH
from benchmarks.processes import on_core

READERS, RATE = 1000, 20
#: Functions that are listed.
MOST = 8


def run(bench: Bench) -> Result:
    """Sample uvicorn and Daphne."""
    result = Result("profile", str(__doc__).partition("\n")[0])
    for server in ("uvicorn", "daphne"):
        peer = peers.livefeed(server)
        found: Counter[str] = Counter()
        bench.attempt(peer, lambda peer=peer, found=found: found.update(profiled(bench, peer)), result)  # type: ignore[misc]
        table = Table(f"share of the samples in which {server} was at work, %: by the function that ran", ["itself, %"])
        for name, count in found.most_common(MOST):
            table.rows[name] = [Measure.of([100 * count / found.total()])]
        result.tables.append(table)
    return result


def profiled(bench: Bench, peer: peers.Peer) -> Counter[str]:
    """Return how often each function was seen at work."""
    path = SCRATCH / "profile.txt"
    with peer.serve(bench.services) as server, Load(server, peer.request()) as load, publishing(server) as publisher:
        load.open(READERS, at_once=32)
        fan_out(server, load, publisher, events=5, rate=RATE)
        words = [str(PYTHON.parent / "py-spy"), "record", "--format", "raw", "--rate", "1000", "--nonblocking"]
        words += ["--duration", "8", "--output", str(path), "--pid", str(server.process.pid)]
        with subprocess.Popen(on_core(LOAD_CORE, words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            time.sleep(1)
            fan_out(server, load, publisher, events=RATE * 6, rate=RATE)
    return innermost(path)


def innermost(path: Path) -> Counter[str]:
    """Return how often each function was the innermost."""
    found: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        function, _, place = stack.rpartition(";")[2].partition(" (")
        found[f"`{function}` in {place.partition(':')[0]}"] += int(count)
    return found
