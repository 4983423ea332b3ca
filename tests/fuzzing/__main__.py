"""``python -m tests.fuzzing``: run targets over many cases, replay one, show that deliberate bugs are found."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple

#: The targets, and how many of a run's cases each gets, in percent, for they differ in what they cost.
SHARES = {"view": 5, "request": 20, "cursor": 20, "encode": 20, "names": 15, "tokens": 10, "parsers": 10}
NAMES = list(SHARES)
#: What coverage is taken of besides livefeed: what reads a request for it, in Django.
READERS = [
    *("django.utils.http.parse_header_parameters", "django.http.request.MediaType.__init__"),
    *("django.http.request.MediaType.match", "django.http.request.HttpRequest.get_preferred_type"),
    *("django.http.request.QueryDict.__init__", "django.core.handlers.asgi.ASGIRequest.__init__"),
    *("django.core.signing.TimestampSigner.unsign", "django.core.signing.Signer.unsign"),
]
INSTALL = (
    "atheris is not installed: pip install atheris (there are wheels for CPython on Linux, x86-64), "
    "or run without coverage: --blind."
)
#: Seconds that a process may take besides its cases, and seconds for each case: the slowest runs 50 in a second.
START, EACH = 120, 0.02


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description=__doc__)
    parser.add_argument(
        "--target", action="append", choices=NAMES, help="run this one (several times: these; else all)"
    )
    parser.add_argument("--cases", type=int, default=200_000, help="cases, over all targets (default 200,000)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes to use (default: all cores)")
    parser.add_argument("--seed", type=int, default=1, help="what chance begins with (default 1)")
    parser.add_argument("--blind", action="store_true", help="at random, without coverage: needs no atheris")
    parser.add_argument("--case", help="check this one case of --target, as JSON")
    parser.add_argument("--bug", help="introduce this bug before, on purpose")
    parser.add_argument("--bugs", action="store_true", help="introduce each bug in turn, and show that it is found")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.blind and not options.bugs and options.case is None and importlib.util.find_spec("atheris") is None:
        parser.error(INSTALL)
    if options.worker:
        return work(options.target[0], options.cases, options.seed, options.blind, options.bug)
    if options.bugs:
        return find_bugs(options.cases)
    if options.case is not None:
        return replay((options.target or ["view"])[0], json.loads(options.case), options.bug)
    passed = [*(["--blind"] if options.blind else []), *(["--bug", options.bug] if options.bug else [])]
    return run(shared(options.target or NAMES, options.cases, options.jobs, options.seed), options.jobs, passed)


def prepare(*, instrument: bool) -> None:
    """Set up Django with a database in memory. What is instrumented has to be imported here for the first time."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    os.environ["LIVEFEED_TEST_DATABASE"] = "sqlite://:memory:"
    import django

    if instrument:
        import atheris

        with atheris.instrument_imports(include=["livefeed"]):
            django.setup()
            from . import runs
        for reader in READERS:
            atheris.instrument_func(resolve_name(reader))
    else:
        django.setup()
        from . import runs
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    runs.quiet()


def work(name: str, cases: int, seed: int, blind: bool, bug: str | None) -> int:
    prepare(instrument=not blind)
    from . import runs, site
    from .bugs import introduced

    began = time.monotonic()
    with site.serving(), introduced(bug):
        if not blind:
            runs.guided(name, cases, seed)
        done = runs.blind(name, cases, seed)
    print(json.dumps({"target": name, "cases": done, "seconds": time.monotonic() - began}))
    return 0


class Part(NamedTuple):
    """What one process does."""

    target: str
    cases: int
    seed: int


def run(parts: list[Part], jobs: int, passed: list[str]) -> int:
    """Let processes do the parts, so many at a time; tell what came of it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="livefeed-fuzzing-") as directory, ThreadPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(lambda part: run_part(part, passed, Path(directory)), parts))
    print(f"{sum(part.cases for part in parts)} cases in {time.monotonic() - began:.0f} s: ", end="")
    broken = [output for output in outcomes if output]
    print("nothing found." if not broken else f"{len(broken)} found.")
    return 1 if broken else 0


def shared(names: list[str], cases: int, jobs: int, seed: int) -> list[Part]:
    """Share cases among targets and processes."""
    whole = sum(SHARES[name] for name in names)
    each = {name: max(1, round(cases * SHARES[name] / whole / jobs)) for name in names}
    return [Part(name, each[name], seed + job) for name in names for job in range(jobs)]


def run_part(part: Part, passed: list[str], directory: Path) -> str:
    """Run a part in a process of its own and tell of it; return what it found."""
    command = [sys.executable, "-m", "tests.fuzzing", "--worker", "--target", part.target, "--cases", str(part.cases)]
    command += ["--seed", str(part.seed), *passed]
    log = directory / f"{part.target}-{part.seed}.log"
    with log.open("w") as errors:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            timeout=START + EACH * part.cases,
            env={**os.environ, "LIVEFEED_FUZZING_DIRECTORY": str(directory)},
            check=False,
        )
    if done.returncode:
        print(f"{done.stdout}{log.read_text()[-3_000:] if 'FOUND' not in done.stdout else ''}", flush=True)
        return done.stdout or "ended without a word"
    result = json.loads(done.stdout.splitlines()[-1])
    reached = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", log.read_text())
    guided = f", {reached[-1][0]} edges reached, {reached[-1][2]} seeds kept" if reached else ""
    print(
        f"{part.target}: {result['cases']} cases in {result['seconds']:.0f} s "
        f"({result['cases'] / result['seconds']:.0f} in a second){guided}",
        flush=True,
    )
    return ""


def replay(name: str, case: dict[str, object], bug: str | None) -> int:
    prepare(instrument=False)
    from . import site
    from .bugs import introduced
    from .targets import TARGETS

    with site.serving(), introduced(bug):
        TARGETS[name].check(case)
    print("Nothing is wrong with this one.")
    return 0


def find_bugs(most: int) -> int:
    prepare(instrument=False)
    from . import site
    from .bugs import BUGS, found_in

    missed = []
    with site.serving():
        for name in BUGS:
            found = found_in(name, most)
            print(f"{name}: " + (f"found by case {found[0]}: {found[1]!s:.120}" if found else f"NOT found in {most}"))
            missed += [] if found else [name]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
