"""``python -m benchmarks``: install what is missing, measure, write the report.

Each scenario that is done is saved at once; one that fails is noted, and the next begins.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import environment
from benchmarks.places import PYTHON, RESULTS

if TYPE_CHECKING:
    from benchmarks.bench import Bench, Result

SCENARIOS = (
    *("fanout", "topics", "storm", "memory", "connecting", "publishing", "commands", "flatness", "curves"),
    *("ceiling", "profile"),
)


def main() -> None:
    """Run the scenarios that were asked for."""
    arguments = parse()
    environment.set_up()
    if Path(sys.prefix).resolve() != PYTHON.parent.parent.resolve():
        os.execv(PYTHON, [str(PYTHON), "-m", "benchmarks", *sys.argv[1:]])
    from benchmarks import report
    from benchmarks.bench import Bench
    from benchmarks.services import services

    environment.allow_files()
    results = report.kept(arguments.output) if arguments.add else {}
    with services() as running:
        bench = Bench(running, arguments.quick, arguments.repeats or (1 if arguments.quick else 3))
        for name in arguments.only or SCENARIOS:
            results[name] = measured(name, bench)
            in_order = [results[name] for name in SCENARIOS if name in results]
            page = report.write(in_order, arguments.output, command(arguments))
    print(page.read_text())
    print(f"Written to {arguments.output}.")
    if failed := [result.name for result in results.values() if result.failure]:
        sys.exit(f"Failed: {', '.join(failed)}.")


def command(arguments: argparse.Namespace) -> str:
    """Return what to say for a run like this one; what was added to an earlier one is a part of that."""
    words = [
        *(["--quick"] if arguments.quick else []),
        *(["--repeats", str(arguments.repeats)] if arguments.repeats else []),
        *(["--only", *arguments.only] if arguments.only and not arguments.add else []),
    ]
    return f'make bench ARGS="{" ".join(words)}"' if words else "make bench"


def measured(name: str, bench: Bench) -> Result:
    """Run one scenario; return what it found, or how it failed."""
    from benchmarks.bench import Result

    print(f"===== {name} =====", flush=True)
    began = time.monotonic()
    try:
        result: Result = importlib.import_module(f"benchmarks.scenarios.{name}").run(bench)
    except Exception as error:
        traceback.print_exc()
        result = Result(name, f"{name} failed", failure=repr(error))
    result.seconds = time.monotonic() - began
    print(f"{name} took {result.seconds:.0f} s", flush=True)
    return result


def parse() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser("python -m benchmarks", description="Measure livefeed beside its peers.")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--quick", action="store_true", help="less of everything, once: a third of the time")
    parser.add_argument("--repeats", type=int, help="how often each is measured (default 3; 1 if it is to be quick)")
    parser.add_argument("--add", action="store_true", help="keep what the last run found in the other scenarios")
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"where the report goes (default {RESULTS})")
    return parser.parse_args()


if __name__ == "__main__":
    main()
