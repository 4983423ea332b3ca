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
from benchmarks.processes import Pinned, first_in_line, free_port
from tests.processes import accepts, run


@dataclass(frozen=True)
class Services:
    """Where the services listen; 0 where one is not installed."""

    postgres: int
    redis: int

    def env(self, database: str = "") -> dict[str, str]:
        """Return what the benchmarked site reads: PostgreSQL, unless ``database`` names a SQLite file."""
        return {"BENCH_DATABASE": database or str(self.postgres), "BENCH_REDIS": str(self.redis)}

    def sql(self, database: str, statement: str) -> str:
        """Run a statement on PostgreSQL; return what it found, as text."""
        where = ["-h", "127.0.0.1", "-p", str(self.postgres), "-U", "postgres"]
        return run(["psql", *where, "-qAt", "-v", "ON_ERROR_STOP=1", "-c", statement, database]).strip()

    def put_first(self) -> None:
        """Let PostgreSQL's processes go first too: each of them leads a session of its own."""
        for pid in self.sql("postgres", "SELECT pid FROM pg_stat_activity").split():
            first_in_line(int(pid))

    def redis_commands(self) -> int:
        """Return how many commands Redis has been given, without this one."""
        told = run(["redis-cli", "-p", str(self.redis), "INFO", "stats"])
        return int(dict(line.split(":", 1) for line in told.split() if ":" in line)["total_commands_processed"])


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
        # The defaults, but for its counter of statements, and as many connections as django-eventstream holds: one for
        # each stream of a user who is signed in.
        options = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={directory}"]
        options += ["-c", "shared_preload_libraries=pg_stat_statements", "-c", "max_connections=4000"]
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
