"""A process of the site that serves nobody: it makes people, publishes, and ends rights, as a test tells it to.

It reads one call per line, as JSON, and answers with one line. :class:`Stage` is the test's side.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import django

from tests.processes import ROOT, environment


class Stage:
    """The process. Each call comes back when the process has done it; what fails there is an error here."""

    def __init__(self, env: Mapping[str, str], log: Path) -> None:
        self._env = env
        self.log_path = log
        self._one_at_a_time = threading.Lock()

    def call(self, name: str, *arguments: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._one_at_a_time:
            self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, f"The stage has ended:\n{self.log_path.read_text()[-3000:]}"
        found = json.loads(answer)
        assert "failed" not in found, f"{name}{arguments} failed:\n{found['failed']}"
        return found["answer"]

    def __enter__(self) -> Self:
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.rights_site.stage"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(self._env),
                cwd=ROOT,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


# -- the process ------------------------------------------------------------------------------------------------------


class Play:
    """What the process does."""

    def prepare(self) -> dict[str, Any]:
        """Make the tables and everybody of the table; return who they are, and under which names each asks."""
        from django.core.management import call_command

        from . import cast

        call_command("migrate", run_syncdb=True, verbosity=0)
        people = cast.everybody()
        another, somebody = cast.by_session("views"), cast.by_session_of_nobody()
        self._mine = [another.user.pk, *(person.user.pk for person in people.values() if person.user)]  # type: ignore[union-attr]
        return {
            "another": another.user.pk,  # type: ignore[union-attr]
            "people": {
                who: {**person.told(), "names": cast.signed_names(person, another, somebody)}
                for who, person in people.items()
            },
        }

    def enter(self, by: str, trait: str, topic: str, seconds: int) -> dict[str, Any]:
        """Make somebody who asks for a topic; where ``seconds`` are said, what they show is good for so long."""
        from livefeed.topics import sign_topic

        from . import cast
        from .models import Desk

        if by == "token" and (seconds or topic == cast.JOB):
            person = cast.by_token(trait, [cast.JOB] if topic == cast.JOB else None, seconds or cast.DAY)
        else:
            person = cast.KNOWN_BY[by](trait)
        name = topic
        if topic == "mine:" and person.user:
            name = f"mine:{person.user.pk}"
        elif topic == "desk:" and person.user:
            desk = Desk.objects.create(name=f"desk of {person.user.pk}")
            desk.members.add(person.user)
            name = f"desk:{desk.pk}"
        elif topic == f"{cast.JOB}~":
            signed = cast.signed_before(cast.DAY - seconds, person.signer) if seconds else ""
            name = signed or sign_topic(cast.JOB, person.signer)
        return {**person.told(), "name": name, "until": time.time() + seconds}

    def act(self, code: str, person: dict[str, Any]) -> None:
        """Run the code that stands in a row, with what it may want to name."""
        from django.contrib.auth.models import Group, User
        from django.contrib.sessions.models import Session
        from rest_framework.authtoken.models import Token

        from livefeed import disconnect, publish, recheck
        from livefeed.topics import plain_name

        from . import cast, models

        topic = plain_name(person["name"])
        names = {
            **{"User": User, "Group": Group, "Session": Session, "Token": Token, "cast": cast, "models": models},
            **{"disconnect": disconnect, "publish": publish, "recheck": recheck, "topic": topic},
            **{"pk": person["user"], "session": person["session"], "user": None},
        }
        if person["user"]:
            names["user"] = User.objects.filter(pk=person["user"]).first()
        exec(code, names)

    def wait_until(self, moment: float) -> None:
        """Come back when a time has come: what is good until then is so no more."""
        while (left := moment - time.time()) > 0:
            time.sleep(left)

    def speak(self, word: str) -> dict[str, str]:
        """Let something happen on every topic of the table, with a title that names the topic's column and the word.

        Returns the cursors of these topics after it.
        """
        from livefeed import publish
        from livefeed.history import cursor

        from . import cast
        from .models import Article, Entry, Story

        _save(Story, 1, title=f"story {word}")
        _save(Article, 1, title=f"article {word}")
        _save(Entry, 1, title=f"ledger {word}", margin="in pencil")
        _save(Entry, 2, title=f"ledger hidden {word}", margin="in pencil", hidden=True)
        others = ["staff", "broken", "club:inner", "quiet", cast.JOB, *(f"mine:{pk}" for pk in self._mine)]
        for topic in others:
            publish(topic, {"title": f"{topic} {word}"})
        return {topic: cursor(topic) for topic in ["story", "story:1", cast.ARTICLE, "ledger", *others]}

    def cursors(self) -> dict[str, str]:
        """Return the cursors of the table's topics before anything has happened."""
        from livefeed.history import cursor

        from . import cast

        topics = ["story", "story:1", cast.ARTICLE, "ledger", "staff", "broken", "club:inner", "quiet", cast.JOB]
        return {topic: cursor(topic) for topic in [*topics, *(f"mine:{pk}" for pk in self._mine)]}


def _save(model: Any, pk: int, **fields: Any) -> None:
    model(pk=pk, **fields).save()


def main() -> None:
    django.setup()
    play = Play()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            found = {"answer": getattr(play, name)(*arguments)}
        except Exception:
            found = {"failed": traceback.format_exc()}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
