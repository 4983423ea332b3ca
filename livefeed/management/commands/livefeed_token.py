"""``manage.py livefeed_token``: make a token with which a client reads in the name of a user."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from livefeed.accounts import key_of, known_users
from livefeed.exceptions import InvalidToken, InvalidTopic
from livefeed.registry import registry
from livefeed.tokens import create_token

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


class Command(BaseCommand):
    help = (
        "Make a token for a client that reads streams in the name of a user (Authorization: Bearer <token>), or of "
        "nobody in particular. It goes to stdout, alone on its line; keep it as you keep a password. It can't be taken "
        "back, but ends with its time, and with a new password, the deactivation or the deletion of the user."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        who = parser.add_mutually_exclusive_group(required=True)
        who.add_argument("user", nargs="?", help=f"The user's {get_user_model().USERNAME_FIELD}.")
        who.add_argument("--id", metavar="KEY", help="The user's primary key, instead.")
        who.add_argument("--anonymous", action="store_true", help="A token for nobody in particular; needs --topic.")
        parser.add_argument(
            "--topic",
            action="append",
            dest="topics",
            metavar="NAME",
            help="Open this topic only. May be given several times. Where a feed owns the topic, its rule is asked "
            "too; where none does, the token is enough. Without it: whatever the rules open to the user.",
        )
        parser.add_argument(
            "--max-age",
            default="1h",
            metavar="TIME",
            help="How long it is good for: seconds, or a number with s, m, h, d or w, such as 7d. Default 1h.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        user = None if options["anonymous"] else self._user(options["user"], options["id"])
        try:
            text = create_token(user, options["topics"], max_age=_seconds(options["max_age"]))
        except (InvalidToken, InvalidTopic) as error:
            raise CommandError(str(error)) from error
        who = "nobody in particular" if user is None else f"{user.get_username()} ({user.pk})"
        self.stderr.write(f"A token for {who}, good for {options['max_age']}, for {_what(options['topics'])}:")
        self.stdout.write(text)

    def _user(self, name: str | None, key: str | None) -> Any:
        """Return the user that is meant. Raises :exc:`CommandError` where there is none, or one that can't come in."""
        model: Any = get_user_model()
        wanted = {model.USERNAME_FIELD: name} if key is None else {"pk": key_of(key)}
        user = model._default_manager.filter(**wanted).first()
        if user is None:
            what = f"{model.USERNAME_FIELD} {name!r}" if key is None else f"primary key {key!r}"
            raise CommandError(f"There is no user with the {what}.")
        if user.pk not in known_users([user.pk]):
            raise CommandError(f"{user.get_username()} is not active, so that a token would open nothing.")
        return user


def _what(topics: list[str] | None) -> str:
    if topics is None:
        return "whatever the rules open to them"
    owned = [topic for topic in topics if registry.owner(topic) is not None]
    rules = f" (and as the rules say for {', '.join(owned)})" if owned else ""
    return f"{', '.join(topics)}{rules}"


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)([smhdw]?)", text)
    if match is None:
        raise CommandError(f"--max-age is {text!r}. Use seconds, or a number with s, m, h, d or w: 3600, 1h, 7d.")
    return float(match[1]) * _SECONDS[match[2]]
