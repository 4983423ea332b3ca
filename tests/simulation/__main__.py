"""``python -m tests.simulation``: run seeds, tell the story of one, show that deliberate bugs are found."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

REPORT_EVERY = 5.0


class Outcome(NamedTuple):
    """What came of a seed."""

    seed: int
    broken: list[str]
    story: list[str]
    faults: Counter[str]
    deliveries: int
    resets: int
    #: A digest of the story: the same seed has the same one every time.
    fingerprint: str


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this seed alone")
    parser.add_argument("--story", action="store_true", help="tell the story of --seed, whatever came of it")
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds to run (default 200)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (default 1)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes to use (default: all cores)")
    parser.add_argument("--bug", help="introduce this bug before, on purpose")
    parser.add_argument("--bugs", action="store_true", help="introduce each bug in turn, and show that it is found")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets of text is part of what a seed decides
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})
    prepare()
    from .bugs import BUGS

    if options.bug and options.bug not in BUGS:
        parser.error(f"--bug {options.bug} is none of: {', '.join(BUGS)}")
    if options.bugs:
        return find_bugs(options.seeds)
    if options.seed is not None:
        return tell(run_seed(options.seed, options.bug), options.story, options.bug)
    return run_many(range(options.first, options.first + options.seeds), options.jobs, options.bug)


def prepare() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    from .scenario import set_up

    set_up()


def run_seed(seed: int, bug: str | None = None) -> Outcome:
    from .bugs import introduced
    from .scenario import run

    with introduced(bug):
        scenario = run(seed)
    deliveries = sum(len(reader.got) for reader in scenario.readers)
    resets = sum(reader.resets for reader in scenario.readers)
    world = scenario.world
    return Outcome(
        seed, world.broken, world.story, scenario.faults.counts, deliveries, resets, digest("\n".join(world.story))
    )


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tell(outcome: Outcome, story: bool, bug: str | None) -> int:
    if outcome.broken or story:
        print("\n".join(outcome.story))
    for promise in outcome.broken:
        print(f"BROKEN by seed {outcome.seed}: {promise}")
    if outcome.broken:
        print(f"To see it again: python -m tests.simulation --seed {outcome.seed}{f' --bug {bug}' if bug else ''}")
    print(f"seed {outcome.seed}: {outcome.deliveries} deliveries, fingerprint {outcome.fingerprint}")
    return 1 if outcome.broken else 0


def _run_quietly(seed: int, bug: str | None) -> Outcome:
    outcome = run_seed(seed, bug)
    return outcome if outcome.broken else outcome._replace(story=[])


def run_many(seeds: range, jobs: int, bug: str | None) -> int:
    began = reported = time.monotonic()
    faults: Counter[str] = Counter()
    deliveries = resets = done = 0
    fingerprints = ""
    with ProcessPoolExecutor(jobs, initializer=prepare) as pool:
        for outcome in pool.map(_run_quietly, seeds, [bug] * len(seeds), chunksize=5):
            done += 1
            faults.update(outcome.faults)
            deliveries += outcome.deliveries
            resets += outcome.resets
            fingerprints += outcome.fingerprint
            if outcome.broken:
                pool.shutdown(wait=False, cancel_futures=True)
                return tell(outcome, True, bug)
            if time.monotonic() - reported > REPORT_EVERY:
                reported = time.monotonic()
                print(f"{done} of {len(seeds)} seeds …", file=sys.stderr)
    print(f"{done} seeds in {time.monotonic() - began:.0f} s: no promise broken. {deliveries} deliveries, ", end="")
    print(f"{faults.total()} faults, {resets} resets, each with a reason.")
    print(", ".join(f"{name} {count}" for name, count in faults.most_common()))
    print(f"fingerprint {digest(fingerprints)}")
    return 0


def find_bugs(most: int) -> int:
    from .bugs import BUGS

    missed = []
    for name in BUGS:
        found = next((outcome for seed in range(1, most + 1) if (outcome := run_seed(seed, name)).broken), None)
        print(f"{name}: " + (f"found by seed {found.seed}: {found.broken[0]}" if found else f"NOT found in {most}"))
        missed += [] if found else [name]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
