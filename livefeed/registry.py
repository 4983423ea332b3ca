"""Which feeds there are, and whose a topic is. Filled by ``@register`` in the apps' ``livefeeds.py``."""

from __future__ import annotations

from typing import TypeVar

from django.utils.module_loading import autodiscover_modules

from .conf import MOST, MOST_SECONDS, settings
from .exceptions import FeedError
from .feeds import LiveFeed
from .history import Retention
from .receivers import Receivers
from .topics import prefix, validate_topic

F = TypeVar("F", bound=type[LiveFeed])


class Registry:
    """The feeds of this process, by name."""

    def __init__(self) -> None:
        self._feeds: dict[str, LiveFeed] = {}
        self._receivers: dict[str, Receivers] = {}
        #: Feeds that were refused because another one has their name; a system check reports them.
        self.clashes: list[LiveFeed] = []

    def add(self, cls: type[LiveFeed]) -> None:
        """Make a feed known and connect it to its model's signals. Raises :exc:`FeedError` for one that can't work."""
        if not (isinstance(cls, type) and issubclass(cls, LiveFeed)):
            raise FeedError(f"{cls!r} is not a LiveFeed. Use @register on a subclass of livefeed.LiveFeed.")
        if not cls.name:
            raise FeedError(f"{cls.__name__} has neither a model nor a name. Set one of them.")
        if ":" in validate_topic(cls.name):
            raise FeedError(f"{cls.__name__}.name is {cls.name!r}. A feed's name has no colon: keys follow after it.")
        feed = cls()
        if cls.name in self._feeds:
            self.clashes.append(feed)
            return
        self._feeds[cls.name] = feed
        if cls.model is not None:
            self._receivers[cls.name] = Receivers(feed, cls.model)
            self._receivers[cls.name].connect()

    def remove(self, cls: type[LiveFeed]) -> None:
        """Forget a feed, and disconnect it from its model's signals."""
        self.clashes = [feed for feed in self.clashes if type(feed) is not cls]
        if type(self._feeds.get(cls.name)) is not cls:
            return
        del self._feeds[cls.name]
        if receivers := self._receivers.pop(cls.name, None):
            receivers.disconnect()

    def owner(self, topic: str) -> LiveFeed | None:
        """Return the feed that owns a topic, if any does."""
        return self._feeds.get(prefix(topic))

    def retention(self, topic: str) -> Retention:
        """Return how much of a topic is kept: as its feed says, else as the settings do.

        What the checks refuse for being too much is as much as there can be: one feed stops the trimming of no other.
        """
        feed = self.owner(topic) or LiveFeed
        seconds = settings.RETENTION if feed.retention is None else feed.retention
        events = settings.RETENTION_EVENTS if feed.retention_events is None else feed.retention_events
        return Retention(min(seconds, MOST_SECONDS), min(events, MOST))

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._feeds.values())


registry = Registry()


def register(cls: F) -> F:
    """Class decorator: make a :class:`LiveFeed` known. Raises :exc:`FeedError` for one that can't work."""
    registry.add(cls)
    return cls


def autodiscover() -> None:
    """Import the ``livefeeds`` module of every installed app."""
    autodiscover_modules("livefeeds")
