"""Prepare the demo, and serve it: `python manage.py demo --serve`."""

import os
import socket
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connections, transaction
from django.utils import timezone

from project.blog.models import Entry, Reading, Section
from project.blog.story import GAUGE, SECTIONS, SO_FAR

HOST = "127.0.0.1"
PASSWORD = "livefeed"


class Command(BaseCommand):
    """Create the database, the logins and some entries; what is there already stays as it is."""

    help = "Prepare the demo: database, logins, entries. With --serve, serve it on 127.0.0.1 at PORT (8000)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--serve", action="store_true", help="serve the demo with Daphne when it is ready")
        parser.add_argument("--port", help="the port to serve on (default: the variable PORT, else 8000)")

    def handle(self, *args: Any, serve: bool, port: str | None, **options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError(
                "DEBUG is off. The demo creates a superuser whose password everybody knows, so it is prepared with "
                "DEBUG on only; for a site of your own: python manage.py migrate, then createsuperuser."
            )
        number = _port(port or os.environ.get("PORT") or "8000")
        if serve:
            _refuse_taken(number)
        call_command("migrate", interactive=False, verbosity=0)
        _write_first_entries()
        self.stdout.write(
            f"The live blog is ready: http://{HOST}:{number}/\n"
            f"    as an editor: editor / {PASSWORD}    (writes on the page, at /desk/ and in /admin/)\n"
            f"    as a reader:  reader / {PASSWORD}\n"
            f"Open it in two windows, sign in as the editor in one, and write."
        )
        self.stdout.flush()
        if serve:
            _serve(number)


def _port(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 65536:
        return int(text)
    raise CommandError(f"{text!r} is not a port. Use a number from 1 to 65535, such as PORT=8001.")


def _refuse_taken(port: int) -> None:
    """Say it in plain words where the port is taken; Daphne would print a traceback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Daphne does: a port just left is free
        try:
            probe.bind((HOST, port))
        except PermissionError:
            raise CommandError(f"Port {port} is for the superuser only. Choose another, such as PORT=8001.") from None
        except OSError:
            free = port % 65535 + 1
            raise CommandError(f"Port {port} on {HOST} is taken. Choose another one, such as PORT={free}.") from None


@transaction.atomic
def _write_first_entries() -> None:
    editor = _user("editor", first_name="Ines", last_name="Halloran", is_staff=True, is_superuser=True)
    _user("reader")
    sections = {
        name: Section.objects.get_or_create(slug=name.lower(), defaults={"name": name, "position": position})[0]
        for position, name in enumerate(SECTIONS)
    }
    if Entry.objects.exists():
        return
    now = timezone.now()
    for number, cm in enumerate(GAUGE, start=1):
        Reading.objects.create(cm=cm, created_at=now - timedelta(minutes=20 * (len(GAUGE) - number) + 4))
    for post in SO_FAR:
        then = now - timedelta(minutes=post.minutes)
        Entry.objects.create(
            title=post.title,
            text=post.text,
            section=sections[post.section],
            author=editor,
            pinned=post.pinned,
            applause=post.applause,
            status=Entry.Status.DRAFT if post.draft else Entry.Status.PUBLISHED,
            status_since=then,
            created_at=then,
            updated_at=then,
        )


def _user(name: str, **more: Any) -> Any:
    user, created = get_user_model().objects.get_or_create(username=name, defaults=more)
    if created:
        user.set_password(PASSWORD)
        user.save()
    return user


def _serve(port: int) -> None:
    from daphne.cli import CommandLineInterface

    connections.close_all()
    CommandLineInterface().run(["--bind", HOST, "--port", str(port), "project.asgi:application"])
