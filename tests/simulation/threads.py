"""Threads of the simulation: real ones, of which one at a time runs, from one pause to the next.

:class:`BackgroundThread` and :class:`Condition` stand in for those of Python's :mod:`threading` in livefeed's modules.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .world import Process


class Killed(BaseException):
    """This thread's process was killed. No ``except Exception`` catches it, as none survives a SIGKILL."""


class Thread:
    """A thread that runs when the world says so."""

    def __init__(self, process: Process, work: Callable[[], object], name: str) -> None:
        self.process = process
        self.name = name
        self.ended = False
        self.killed = False
        self._world = process.world
        self._work = work
        self._condition: Callable[[], bool] | None = None
        self._go = threading.Lock()
        self._go.acquire()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def runnable(self) -> bool:
        return not self.ended and (self._condition is None or self._condition())

    def resume(self) -> None:
        """Run on until the next pause, or to the end."""
        self._world.thread = self
        self._go.release()
        self._world.baton.acquire()
        self._world.thread = None

    def pause(self, condition: Callable[[], bool] | None = None) -> None:
        """Give the turn back, and go on when it comes again and the condition holds."""
        if self.killed:
            raise Killed
        self._condition = condition
        self._world.baton.release()
        self._go.acquire()
        self._condition = None
        if self.killed:
            raise Killed

    def kill(self) -> None:
        """End this thread where it pauses. Only the world may do that: it waits for the thread's end."""
        self.killed = True
        if not self.ended:
            self.resume()

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self.killed:
                self._work()
        except Killed:
            pass
        except Exception as error:
            self._world.tell(f"{self.name} ended with {error!r}")
        finally:
            self.ended = True
            self._world.baton.release()


class BackgroundThread:
    """``threading.Thread`` for the process whose turn it is."""

    def __init__(self, *, target: Callable[[], object], name: str, daemon: bool) -> None:
        self._target = target
        self._name = name

    def start(self) -> None:
        from .world import CURRENT

        CURRENT[0].start_thread(self._target, self._name)


class Condition:
    """``threading.Condition``, without a lock: nobody else runs before the next pause."""

    def __init__(self) -> None:
        self._notified = False

    def __enter__(self) -> Condition:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def notify_all(self) -> None:
        self._notified = True

    def wait(self, timeout: float) -> None:
        from .world import CURRENT

        world = CURRENT[0].world
        self._notified = False
        due = world.now + timeout
        world.after(timeout, lambda: None)  # so that the clock stops there
        world.pause(lambda: self._notified or world.now >= due)
