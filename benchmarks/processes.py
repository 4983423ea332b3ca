"""Processes on a core of their own, and what the operating system says of what they cost."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.places import LOAD_CORE, ROOT, SCRATCH, SERVER_CORE
from tests.processes import Process, free_port

__all__ = ["Conversation", "Pinned", "Usage", "free_port"]

TICKS = os.sysconf("SC_CLK_TCK")
#: The nice value of all that takes part.
PRIORITY = -15


@dataclass(frozen=True)
class Usage:
    """What a process and those it has started have used so far, by ``/proc``."""

    cpu: float  #: seconds, of user and system together
    system: float  #: seconds, of the system's alone
    memory: float  #: KiB resident
    threads: int
    switches: int  #: context switches that the process itself asked for: its wake-ups

    def since(self, before: Usage) -> Usage:
        """Return what was used after that, and the threads there are now."""
        return Usage(
            self.cpu - before.cpu,
            self.system - before.system,
            self.memory - before.memory,
            self.threads,
            self.switches - before.switches,
        )


def usage_of_group(leader: int) -> Usage:
    """Add up what the processes of a group have used."""
    cpu = system = memory = 0.0
    threads = switches = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):  # it ended meanwhile
            # proc(5): the name stands in parentheses, and may hold anything.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) != leader:
                continue
            cpu += (int(fields[11]) + int(fields[12])) / TICKS
            system += int(fields[12]) / TICKS
            threads += int(fields[17])
            memory += int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 1024
            status = dict(line.split(":\t", 1) for line in (entry / "status").read_text().splitlines())
            switches += int(status["voluntary_ctxt_switches"])
    return Usage(cpu, system, memory, threads, switches)


class Pinned(Process):
    """A server on one core. Its log is kept in a file and not printed."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        ready: Callable[[], bool],
        env: Mapping[str, str | None] | None = None,
        core: int = SERVER_CORE,
        cwd: Path = ROOT,
    ) -> None:
        SCRATCH.mkdir(parents=True, exist_ok=True)
        log = SCRATCH / f"{name.replace(' ', '-').replace('/', '-')}.log"
        log.unlink(missing_ok=True)
        super().__init__(name, on_core(core, command), log=log, ready=ready, env=env, cwd=cwd)

    def start(self) -> Self:
        """Start it, before everything else on its core."""
        super().start()
        first_in_line(self.pid)
        return self

    def stop(self, limit: float = 3) -> None:
        """End it, the hard way where it is slow."""
        with contextlib.redirect_stdout(io.StringIO()):
            super().stop(limit)

    def pause(self) -> None:
        """Let it do nothing until it may go on."""
        os.killpg(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it work again."""
        os.killpg(self.pid, signal.SIGCONT)

    def usage(self) -> Usage:
        """Return what it has used so far."""
        return usage_of_group(self.pid)


def on_core(core: int, command: Sequence[str]) -> list[str]:
    """Return a command that runs on one core only; on a machine that has no such core it runs anywhere."""
    return ["taskset", "-c", str(core), *command] if core < (os.cpu_count() or 1) else list(command)


def first_in_line(pid: int) -> None:
    """Let what else runs on this machine wait for a process and its session, as far as we may say so.

    sched(7), "The autogroup feature": between sessions the nice value of the group counts and not the process's.
    """
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(PRIORITY))
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, PRIORITY)


class Conversation:
    """A program that is told by lines on stdin and answers each with a line on stdout."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str] | None = None, core: int = LOAD_CORE) -> None:
        self._process = subprocess.Popen(
            on_core(core, command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        first_in_line(self._process.pid)

    def tell(self, line: str) -> None:
        """Send a line and don't wait for its answer."""
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def answer(self) -> list[str]:
        """Wait for the next answer; return its words."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()} instead of an answer.")
        return line.split()

    def ask(self, line: str) -> list[str]:
        """Send a line and return the words of its answer."""
        self.tell(line)
        return self.answer()

    def usage(self) -> Usage:
        """Return what the program has used so far."""
        return usage_of_group(self._process.pid)

    def stop(self) -> None:
        """End the program."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=10)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
