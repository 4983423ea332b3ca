"""A PostgreSQL and a Redis of the benchmarks' own, on the core of the load, with their defaults."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.places import LOAD_CORE, SCRATCH
from benchmarks.processes import Pinned, free_port
from tests.processes import accepts


@dataclass(frozen=True)
class Services:
    """Where the services listen; 0 where one is not installed."""

    postgres: int
    redis: int

    def env(self, database: str = "") -> dict[str, str]:
        """Return what the benchmarked site reads: PostgreSQL, unless ``database`` names a SQLite file."""
        return {"BENCH_DATABASE": database or str(self.postgres), "BENCH_REDIS": str(self.redis)}


@contextmanager
def services() -> Iterator[Services]:
    """Start both until the block ends."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with _redis() as redis, _postgres() as postgres:
        yield Services(postgres, redis)


@contextmanager
def _redis() -> Iterator[int]:
    program = shutil.which("redis-server")
    if program is None:
        yield 0
        return
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with Pinned("redis", command, ready=lambda: accepts(port), core=LOAD_CORE):
        yield port


@contextmanager
def _postgres() -> Iterator[int]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        yield 0
        return
    port, bin = free_port(), found[-1].parent
    directory = Path(tempfile.mkdtemp(prefix="livefeed-bench-"))
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(directory, "postgres")
    try:
        init = _as_postgres([str(bin / "initdb"), "-D", str(directory / "data"), "-U", "postgres", "-A", "trust"])
        subprocess.run(init, check=True, capture_output=True, cwd=directory)
        options = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={directory}"]
        command = _as_postgres([str(bin / "postgres"), "-D", str(directory / "data"), *options])
        with Pinned("postgres", command, ready=lambda: accepts(port), core=LOAD_CORE, cwd=directory):
            yield port
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _as_postgres(command: Sequence[str]) -> list[str]:
    if os.geteuid() != 0:
        return list(command)
    user = pwd.getpwnam("postgres")
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *command]
