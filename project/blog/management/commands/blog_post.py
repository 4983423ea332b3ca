"""Write one entry from the command line: a writer in a process of its own."""

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from project.blog.models import Entry, Section


class Command(BaseCommand):
    """Write one entry and print its primary key."""

    help = "Write one entry; it appears on every open page. Prints the entry's primary key."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--title", required=True)
        parser.add_argument("--text", default="")
        parser.add_argument("--section", required=True, help="the slug of a section")
        parser.add_argument("--author", default="editor", help="a user name (default: editor)")
        parser.add_argument("--pinned", action="store_true", help="keep it at the top")
        parser.add_argument("--draft", action="store_true", help="show it on the staff's desk only")

    def handle(self, *args: Any, **options: Any) -> str:
        entry = Entry.objects.create(
            title=options["title"],
            text=options["text"],
            section=_section(options["section"]),
            author=_author(options["author"]),
            pinned=options["pinned"],
            status=Entry.Status.DRAFT if options["draft"] else Entry.Status.PUBLISHED,
        )
        return str(entry.pk)


def _section(slug: str) -> Section:
    try:
        return Section.objects.get(slug=slug)
    except Section.DoesNotExist:
        known = ", ".join(Section.objects.values_list("slug", flat=True)) or "none yet: run manage.py demo"
        raise CommandError(f"There is no section {slug!r}. There is: {known}.") from None


def _author(name: str) -> Any:
    User = get_user_model()
    try:
        return User.objects.get_by_natural_key(name)
    except User.DoesNotExist:
        raise CommandError(f"There is no user {name!r}. Run manage.py demo, or name another with --author.") from None
