"""``manage.py livefeed_connections``: who is connected, over all processes, and the way to close connections."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from livefeed.exceptions import InvalidTopic
from livefeed.leases import Connection, get_leases
from livefeed.revoking import disconnect, holder_of
from livefeed.topics import validate_topic


class Command(BaseCommand):
    help = (
        "List the live connections of all processes: whose, since when, which topics. With --disconnect they are "
        "closed: at once where the channel layer works, else within LIVEFEED_RECHECK_INTERVAL or a third of "
        "LIVEFEED_LEASE_SECONDS, whichever is less. Whoever may still read comes back after some seconds."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", metavar="NAME", help=f"Only this user's ({get_user_model().USERNAME_FIELD}).")
        parser.add_argument("--topic", default="", metavar="NAME", help="Only those on this topic.")
        parser.add_argument("--disconnect", action="store_true", help="Close them; needs --user or --topic.")

    def handle(self, *args: Any, **options: Any) -> None:
        user, topic = self._user(options["user"]), options["topic"]
        if options["disconnect"] and user is None and not topic:
            raise CommandError("--disconnect would close every connection there is. Add --user or --topic.")
        try:
            topic = validate_topic(topic) if topic else ""
        except InvalidTopic as error:
            raise CommandError(str(error)) from error
        holder = holder_of(user) if user is not None else ""
        found = sorted(get_leases().connections(holder=holder, topic=topic), key=lambda found: found.opened_at)
        for connection in found:
            self.stdout.write(_line(connection))
        if options["disconnect"]:
            disconnect(user=user, topic=topic)
        self.stderr.write(f"{len(found)} connections{' are closed' if options['disconnect'] else ''}.")

    def _user(self, name: str | None) -> Any:
        if name is None:
            return None
        model: Any = get_user_model()
        user = model._default_manager.filter(**{model.USERNAME_FIELD: name}).first()
        if user is None:
            raise CommandError(f"There is no user with the {model.USERNAME_FIELD} {name!r}.")
        return user


def _line(connection: Connection) -> str:
    return f"{connection.opened_at:%Y-%m-%d %H:%M:%S %Z}  {connection.holder}  {' '.join(connection.topics)}"
