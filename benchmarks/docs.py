"""Put what a run has found into docs/performance.md: ``python -m benchmarks.docs``, or ``make bench-docs``.

What stands between ``<!-- NAME -->`` and ``<!-- end -->`` there is written anew, and the plots beside it are drawn.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import report
from benchmarks.bench import Result, Table
from benchmarks.measures import UNKNOWN
from benchmarks.places import RESULTS, ROOT

PAGE = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "performance"

#: Why a row may miss its bound, by what it begins with.
REASONS = {
    "CPU per delivery, one event at a time": """
Half of a delivery is the kernel's, and the same for all; of the rest, uvicorn's own `send` takes the larger part.""",
    "a transaction with one save()": """
One insert before its commit; and a thread of its process, which the benchmark keeps on the writer's core, numbers and
tells of what many commits left. Where even that is too dear, `RedisHistory` appends after the commit instead
([histories](histories.md)).""",
    "a save() in autocommit": """
One statement more, and so one more commit that the disk has to confirm: in autocommit Django has committed the row
before anybody is told.""",
    "1,000 saves in one transaction": """
What a save publishes is made and encoded at the save; it is written by one statement for six hundred, just
before the commit.""",
    "signed-in users who connect": """
The session, the user and the rights are asked for as by every Django view, and a lease is taken besides (limits over
all processes).""",
    "deliveries/s that the load could take": """
One write per event makes one read per event, which is the kernel's work on both sides: where the machine is slow or
shared, load and writer slow down alike. How busy the load was is in each row: what is joined leaves it idle.""",
}


def main(results: Path = RESULTS) -> None:
    """Write the page anew from ``results.json``."""
    run = json.loads((results / "results.json").read_text())
    found = report.kept(results)
    PLOTS.mkdir(exist_ok=True)
    for old in PLOTS.glob("*.svg"):
        old.unlink()
    drawn = report.draw([plot for result in found.values() for plot in result.plots], PLOTS)
    parts: dict[str, Callable[[], Iterator[str]]] = {
        "run": lambda: iter([f"`{run['command']}` on {run['machine']}; {minutes(found)} minutes."]),
        "verdicts": lambda: verdicts(found),
        "tables": lambda: tables(found, drawn),
        "costs": lambda: costs(found),
        "sizing": lambda: sizing(found),
    }
    PAGE.write_text(filled(PAGE.read_text(), parts))


def filled(page: str, parts: dict[str, Callable[[], Iterator[str]]]) -> str:
    """Return the page with its parts written anew."""

    def part(place: re.Match[str]) -> str:
        text = "\n".join(parts[place["name"]]()).strip()
        return f"<!-- {place['name']} -->\n{text}\n<!-- end -->"

    return re.sub(r"<!-- (?P<name>\w+) -->\n.*?<!-- end -->", part, page, flags=re.DOTALL)


def minutes(found: dict[str, Result]) -> int:
    """Return how long the run took."""
    return round(sum(result.seconds for result in found.values()) / 60)


def verdicts(found: dict[str, Result]) -> Iterator[str]:
    """Yield the table of what must be reached, and why some of it is not."""
    yield from report.verdict_table(found.values())
    missed = [verdict.what for result in found.values() for verdict in result.verdicts if not verdict.is_reached]
    reasons = {start: why for start, why in REASONS.items() if any(what.startswith(start) for what in missed)}
    if reasons:
        yield from ("What is not reached, and why:", "")
        yield from (f"* **{start[0].upper() + start[1:]}.** {' '.join(why.split())}" for start, why in reasons.items())


def tables(found: dict[str, Result], drawn: list[str]) -> Iterator[str]:
    """Yield all tables, and the plots under those that they belong to."""
    for result in found.values():
        yield from report.found(result, "###")
        for plot in result.plots:
            if f"{plot.name}.svg" in drawn:
                yield from (f"![{plot.title}](performance/{plot.name}.svg)", "")


class Figures:
    """The figures that sizes are calculated from, under uvicorn and Daphne."""

    def __init__(self, found: dict[str, Result]) -> None:
        self._found = found

    def of(self, scenario: str, table: int, row: str, column: str) -> float:
        """Return one figure; not a number where the run has none."""
        tables = self._found[scenario].tables if scenario in self._found else []
        if table >= len(tables) or row not in tables[table].rows:
            return math.nan
        return tables[table].median(row, column)

    def memory(self, server: str) -> float:
        """KiB per idle reader."""
        return self.of("memory", 0, f"livefeed, {server}", "KiB")

    def delivery(self, server: str, *, under_load: bool) -> float:
        """Microseconds per delivery."""
        return self.of("fanout", int(under_load), f"livefeed, {server}", "CPU per delivery, µs")

    def connect(self, server: str) -> float:
        """Milliseconds of CPU per connect."""
        return self.of("connecting", 0, f"livefeed, {server}", "CPU of the server per connection, ms")


def costs(found: dict[str, Result]) -> Iterator[str]:
    """Yield what costs what, from the figures of the run."""
    figures = Figures(found)
    table = Table("", ["uvicorn", "Daphne"])
    servers = ("uvicorn", "daphne")
    for what, figure in (
        ("a reader who waits, KiB", figures.memory),
        ("a delivery, one event at a time, µs", lambda server: figures.delivery(server, under_load=False)),
        ("a delivery under load, µs", lambda server: figures.delivery(server, under_load=True)),
        ("a connect of a signed-in user, ms", figures.connect),
    ):
        table.rows[what] = [report.short(figure(server)) for server in servers]
    yield from report.rows(table)


def sizing(found: dict[str, Result]) -> Iterator[str]:
    """Yield how large a site of so many readers is, calculated from the figures of the run on uvicorn."""
    figures = Figures(found)
    kib, alone, loaded = figures.memory("uvicorn"), *(figures.delivery("uvicorn", under_load=x) for x in (False, True))
    columns = ["processes", "memory", "one event a second to all", "20 events a second to all", "all come back at once"]
    table = Table("", [*columns, "what becomes the limit"])
    for exponent, limit in enumerate(LIMITS, 3):
        readers = 10**exponent
        processes = max(1, readers // 10_000)
        dearest, cheapest = readers * 20 * alone / 1e6, readers * 20 * loaded / 1e6
        table.rows[f"10{'³⁴⁵⁶'[exponent - 3]}"] = [
            f"{processes}",
            size(readers * kib),
            f"{report.short(readers * alone / 1e6)} cores",
            f"{report.short(cheapest)} to {report.short(dearest)} cores",
            f"{report.short(readers * figures.connect('uvicorn') / 1000 / processes)} s of each process' core",
            limit,
        ]
    yield from report.rows(table)


#: What becomes the limit at 10³ readers, and at each ten times as many.
LIMITS = (
    "nothing",
    "`ulimit -n`; latency: one flush to all takes a tenth of a second",
    "everybody coming back at once",
    "leases: a million rows every 20 s; the network: 2 Gbit/s per event and second",
)


def size(kib: float) -> str:
    """Return an amount of memory."""
    if math.isnan(kib):
        return UNKNOWN
    return f"{kib / 1024:.0f} MiB" if kib < 1024**2 else f"{kib / 1024**2:.1f} GiB"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
