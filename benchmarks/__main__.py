"""``python -m benchmarks``: install what is missing, measure, write the report."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
import time
from pathlib import Path

from benchmarks import environment
from benchmarks.places import PYTHON, RESULTS

SCENARIOS = ("fanout", "curves", "memory", "connecting", "topics", "storm", "publishing", "commands", "flatness")


def main() -> None:
    """Run the scenarios that were asked for."""
    arguments = parse()
    environment.set_up()
    if Path(sys.prefix).resolve() != PYTHON.parent.parent.resolve():
        os.execv(PYTHON, [str(PYTHON), "-m", "benchmarks", *sys.argv[1:]])
    from benchmarks import report
    from benchmarks.bench import Bench
    from benchmarks.services import services

    results = []
    with services() as running:
        bench = Bench(running, arguments.quick, arguments.repeats or (1 if arguments.quick else 3))
        for name in arguments.only or SCENARIOS:
            print(f"===== {name} =====", flush=True)
            began = time.monotonic()
            results.append(importlib.import_module(f"benchmarks.scenarios.{name}").run(bench))
            print(f"{name} took {time.monotonic() - began:.0f} s", flush=True)
            command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
            page = report.write(results, arguments.output, command)
    print(page.read_text())
    print(f"Written to {arguments.output}.")


def parse() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser("python -m benchmarks", description="Measure livefeed beside its peers.")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--quick", action="store_true", help="less of everything, once: minutes instead of an hour")
    parser.add_argument("--repeats", type=int, help="how often each is measured (default 3; 1 if it is to be quick)")
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"where the report goes (default {RESULTS})")
    return parser.parse_args()


if __name__ == "__main__":
    main()
