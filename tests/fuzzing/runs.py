"""Running a target: its cases made and changed at random, or guided by coverage; and what was found, kept as files."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NoReturn

from .mutation import mutated, smaller
from .targets import TARGETS, Target, failure
from .words import Case

CORPUS = Path(__file__).parent / "corpus"
#: Made cases that a guided run begins with, besides those of the corpus.
SEEDS = 200
#: Bytes of the longest case that is kept as a seed, and seconds that one may take.
LONGEST, SLOWEST = 16_000, 20


def corpus(name: str) -> list[Case]:
    """Return the kept cases of a target, one per line of its file."""
    path = CORPUS / f"{name}.jsonl"
    return [json.loads(line)["case"] for line in path.read_text().splitlines()] if path.exists() else []


def cases(target: Target, kept: list[Case], seed: int | str) -> Iterator[Case]:
    """Yield the kept cases, and then ever new ones, the same for the same seed."""
    yield from kept
    pool = list(kept)
    number = 0
    while True:
        random = Random(f"{seed} {number}")
        number += 1
        fresh = target.make(random)
        if pool and random.random() < 0.3:
            yield plain(mutated(random.choice(pool), fresh, random))
        else:
            pool.append(fresh)
            del pool[: len(pool) - 200]
            yield plain(fresh)


def plain(case: Case) -> Case:
    """Return a case as it comes back from a file, so that what was found can be found again."""
    replayed: Case = json.loads(json.dumps(case))
    return replayed


def first_failure(
    target: Target, kept: list[Case], most: int, seed: int | str = 1
) -> tuple[int, Case, Exception] | None:
    """Return the first case that fails, its number and what is wrong; None where none of so many does."""
    for number, case in enumerate(cases(target, kept, seed), 1):
        if error := failure(target, case):
            return number, case, error
        if number >= most:
            return None
    return None


def told(name: str, case: Case, error: Exception) -> str:
    """Say what was found, cut down to what is needed for it, as a line for the corpus."""
    target = TARGETS[name]

    def fails_too(candidate: Case) -> bool:
        found = failure(target, plain(candidate))
        return type(found) is type(error) and str(found)[:12] == str(error)[:12]

    small = smaller(case, fails_too)
    found = failure(target, small) or error
    line = json.dumps({"why": f"{type(found).__name__}: {found}"[:200], "case": small})
    place = f"tests/fuzzing/corpus/{name}.jsonl"
    return f"FOUND by {name}: {type(found).__name__}: {found}\nKeep it, for good, in {place}:\n{line}"


def blind(name: str, most: int, seed: int) -> int:
    """Run a target at random; return how many cases it was. Exits where one fails."""
    target = TARGETS[name]
    found = first_failure(target, corpus(name), most, seed)
    if found is not None:
        print(told(name, found[1], found[2]), flush=True)
        raise SystemExit(1)
    return most


def guided(name: str, most: int, seed: int) -> NoReturn:
    """Run a target guided by coverage. The process ends with this: libFuzzer does not return."""
    import atheris

    target = TARGETS[name]
    began, done = time.monotonic(), 0

    def one(data: bytes) -> None:
        nonlocal done
        case = _read(data)
        if case is not None:
            done += 1
            if error := failure(target, case):
                print(told(name, case, error), flush=True)
                os._exit(1)
        if done >= most:
            print(json.dumps({"target": name, "cases": done, "seconds": time.monotonic() - began}), flush=True)
            os._exit(0)

    def changed(data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)
        fresh = target.make(random)
        case = _read(data)
        if case is not None and case.keys() == fresh.keys() and random.random() < 0.8:
            fresh = mutated(case, fresh, random)
        made = _written(fresh)
        return made if len(made) <= max_size else data[:max_size]

    directory = Path(tempfile.mkdtemp(prefix="livefeed-fuzzing-", dir=os.environ.get(DIRECTORY)))
    seeds = [*corpus(name), *(target.make(Random(f"{seed} {number}")) for number in range(SEEDS))]
    for number, case in enumerate(seeds):
        (directory / f"{number:05}").write_bytes(_written(case))
    options = [f"-seed={seed}", f"-max_len={LONGEST}", f"-timeout={SLOWEST}", "-rss_limit_mb=0", "-print_pcs=0"]
    atheris.Setup(["fuzzing", *options, f"-artifact_prefix={directory}/", str(directory)], one, custom_mutator=changed)
    atheris.Fuzz()
    os._exit(1)  # it has ended by itself, and not by `one`


#: The directory for what a guided run keeps while it runs, by the environment: whoever starts it removes it.
DIRECTORY = "LIVEFEED_FUZZING_DIRECTORY"


def _read(data: bytes) -> Case | None:
    try:
        case: Any = json.loads(data)
    except ValueError:
        return None
    return case if isinstance(case, dict) else None


def _written(case: Case) -> bytes:
    return json.dumps(case).encode()


def quiet() -> None:
    """Let Django not log what it refuses: that is what most cases are."""
    logging.getLogger("django").setLevel(logging.CRITICAL + 1)
