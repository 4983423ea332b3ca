"""Cases changed and cut down, as the JSON that they are. A list in a list is a row, and keeps its length."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from .words import CHARACTERS, WORDS, Case, number

#: Where a value stands in a case: keys and indexes from the top.
Path = tuple[Any, ...]


def mutated(case: Case, fresh: Case, random: Random) -> Case:
    """Return a case that differs a little; ``fresh`` is another one, to take parts from."""
    changed = copy.deepcopy(case)
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        _mutate(changed, fresh, random)
    return changed


def _mutate(case: Case, fresh: Case, random: Random) -> None:
    if random.random() < 0.25 and (key := random.choice(list(fresh))) in case:
        case[key] = copy.deepcopy(fresh[key])
        return
    paths = [path for path in _paths(case) if path]
    if not paths:
        return
    path = random.choice(paths)
    holder = _at(case, path[:-1])
    if not (isinstance(holder, list) and isinstance(holder[path[-1]], list)):
        holder[path[-1]] = _changed(holder[path[-1]], random)


def _changed(value: Any, random: Random) -> Any:
    if isinstance(value, str):
        return _changed_text(value, random)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return random.choice([value + 1, value - 1, -value, value * 2, number(random)])
    if isinstance(value, list) and value:
        return _changed_list(value, random)
    return value


def _changed_text(value: str, random: Random) -> str:
    start = random.randint(0, len(value))
    end = min(len(value), start + random.choice([0, 0, 1, 1, 2, 8, 100]))
    part = value[start:end]
    put = random.choice(
        [
            "",
            random.choice(CHARACTERS),
            random.choice(CHARACTERS),
            random.choice(WORDS),
            part * 2,
            part * random.choice([3, 60, 1000]) if len(value) < 10_000 else "",
            part[::-1],
            part.swapcase(),
            chr(random.randrange(256)),
            chr(ord(part[0]) ^ (1 << random.randrange(7))) if part else "",
        ]
    )
    return value[:start] + put + value[end:]


def _changed_list(value: list[Any], random: Random) -> list[Any]:
    index = random.randrange(len(value))
    item = value[index]
    return random.choice(
        [
            [*value[:index], *value[index + 1 :]],
            [*value[:index], item, copy.deepcopy(item), *value[index + 1 :]],
            [*value[:index], *(copy.deepcopy(item) for _ in range(60)), *value[index + 1 :]]
            if len(value) < 200
            else [],
            value[::-1],
            [item],
        ]
    )


def smaller(case: Case, fails: Callable[[Case], bool], most: int = 500) -> Case:
    """Return a case that still fails, with as much left out as ``most`` tries find."""
    tries = 0
    again = True
    while again and tries < most:
        again = False
        for candidate in _cut_down(case):
            tries += 1
            if tries >= most:
                break
            if fails(candidate):
                case, again = candidate, True
                break
    return case


def _cut_down(case: Case) -> Iterator[Case]:
    for path in sorted(_paths(case), key=len):
        value = _at(case, path)
        shorter: list[Any] = []
        row = isinstance(value, list) and path and isinstance(path[-1], int)
        if isinstance(value, str | list) and value and not row:
            half = len(value) // 2
            shorter = [value[:0], value[:half], value[half:], value[1:], value[:-1]]
            if len(value) < 40:
                shorter += [value[:index] + value[index + 1 :] for index in range(1, len(value) - 1)]
        elif isinstance(value, dict) and path:
            shorter = [{key: item for key, item in value.items() if key != left_out} for left_out in value]
        elif isinstance(value, int) and value:
            shorter = [0, value // 2]
        for candidate in shorter:
            if path and candidate != value:
                made = copy.deepcopy(case)
                _at(made, path[:-1])[path[-1]] = candidate
                yield made


def _paths(value: Any, path: Path = ()) -> Iterator[Path]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _paths(item, (*path, key))


def _at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value
