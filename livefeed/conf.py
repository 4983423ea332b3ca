"""The settings, each with its type, its default, and what turns it off.

Read lazily, so that ``import livefeed`` works before Django is set up and ``override_settings`` works in tests.
"""

from __future__ import annotations

import hashlib
from typing import Any, Generic, TypeVar, overload

from django.conf import settings as django_settings

T = TypeVar("T")

#: The most that a setting may be, of seconds (a hundred years) and of anything else: what no database has to refuse.
MOST_SECONDS, MOST = 100 * 365 * 86_400.0, 2**53


class Setting(Generic[T]):
    """One ``LIVEFEED_*`` setting. ``manage.py check`` looks at its type, that of the default, and at its bounds."""

    def __init__(self, default: T, *, minimum: float | None = None, maximum: float | None = None) -> None:
        self.default = default
        self.minimum = minimum
        self.maximum = maximum

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = f"LIVEFEED_{name}"

    @overload
    def __get__(self, instance: None, owner: type) -> Setting[T]: ...
    @overload
    def __get__(self, instance: Settings, owner: type) -> T: ...
    def __get__(self, instance: Settings | None, owner: type) -> Setting[T] | T:
        if instance is None:
            return self
        value: T = getattr(django_settings, self.name, self.default)
        return value

    def error(self) -> str | None:
        """Say what is wrong with the configured value, or None."""
        value: Any = getattr(django_settings, self.name, self.default)
        if isinstance(self.default, list):
            usable = isinstance(value, (list, tuple)) and all(isinstance(part, str) for part in value)
            return None if usable else f"{self.name} is {value!r}; it must be a list of str."
        wanted: tuple[type, ...] = (int, float) if isinstance(self.default, float) else (type(self.default),)
        usable = isinstance(value, wanted) and not isinstance(value, bool)
        if not usable:
            return f"{self.name} is {value!r}; it must be of type {wanted[-1].__name__}."
        if self.minimum is not None and not float(value) >= self.minimum:  # so that NaN is refused too
            return f"{self.name} is {value!r}; it must be at least {self.minimum}."
        most = self.maximum or (MOST_SECONDS if isinstance(self.default, float) else MOST)
        if self.minimum is not None and value > most:
            return f"{self.name} is {value!r}; it must be at most {most}."
        return None


class Settings:
    """``settings.KEEPALIVE`` is Django's ``LIVEFEED_KEEPALIVE``, or the default given here."""

    #: Dotted path of the history backend. Default: Django's database.
    HISTORY = Setting("livefeed.history.database.DatabaseHistory")
    #: Dotted path of the keeper of leases, in Redis livefeed.leases.redis.RedisLeases. Default: Django's database.
    LEASES = Setting("livefeed.leases.database.DatabaseLeases")
    #: Alias of the one database that holds the history and the leases. Default "default".
    DATABASE = Setting("default")
    #: URL of RedisHistory's and RedisLeases' Redis: redis://, rediss://, unix://, redis+cluster://. Default "".
    REDIS = Setting("")
    #: Alias in CHANNEL_LAYERS. Default "default"; without CHANNEL_LAYERS an in-memory layer is used.
    CHANNEL_LAYER = Setting("default")
    #: Keeps sites that share a Redis apart; letters, digits, "-", "_". Default "": drawn from SECRET_KEY.
    PREFIX = Setting("")

    #: Seconds that an event is kept, counted from its numbering. Default one day; 0 keeps by count only.
    RETENTION = Setting(86_400.0, minimum=0)
    #: Events kept per topic. Default 10,000; 0 keeps by age only.
    RETENTION_EVENTS = Setting(10_000, minimum=0)
    #: Seconds between two looks of a hub at the history: the longest a lost layer message delays an event. Default 1.
    LOOK_INTERVAL = Setting(1.0, minimum=0.05)
    #: Seconds between two numberings of one process, each of all that it committed meanwhile, by a thread of its own.
    #: Default 0.01; 0: each commit is numbered by who made it.
    RELAY_PAUSE = Setting(0.01, minimum=0, maximum=1)
    #: Bytes of recent events that one process keeps in memory, over all topics. Default 64 MiB.
    TAIL_BYTES = Setting(64 * 1024 * 1024, minimum=64 * 1024)
    #: Events of one topic that a stream replays to a client that comes back; one further behind gets a reset. Default
    #: 10,000; 0: no limit.
    MAX_REPLAY = Setting(10_000, minimum=0)
    #: Bytes of one event's data, as JSON in UTF-8. Default 256 KiB.
    MAX_EVENT_BYTES = Setting(256 * 1024, minimum=1024)

    #: Seconds of silence after which a comment is sent. Default 15.
    KEEPALIVE = Setting(15.0, minimum=0.1)
    #: Seconds that what was written may wait for a client that does not read, or is gone without a word, before it is
    #: disconnected. Default 60; 0: never.
    SEND_TIMEOUT = Setting(60.0, minimum=0)
    #: Topics on one connection. Default 50; 150 at most, so that a cursor of them all fits into a header.
    MAX_TOPICS = Setting(50, minimum=1, maximum=150)
    #: Seconds on SIGTERM for saying goodbye to open streams. Default 3; 0 leaves signals alone.
    DRAIN_SECONDS = Setting(3.0, minimum=0)

    #: Who is asking: dotted paths, asked in this order, the first that answers wins. Default: tokens, then sessions.
    AUTHENTICATION: Setting[list[str]] = Setting(["livefeed.authentication.token", "livefeed.authentication.session"])
    #: Origins whose pages may read streams with their user's cookies, as "https://app.example.com". Default: only ours.
    ALLOWED_ORIGINS = Setting[list[str]]([])
    #: Streams per user over all processes. Default 10; 0: no limit.
    MAX_CONNECTIONS_PER_USER = Setting(10, minimum=0)
    #: Streams per session over all processes, signed in or not. Default 10; 0: no limit.
    MAX_CONNECTIONS_PER_SESSION = Setting(10, minimum=0)
    #: Streams of those who are not signed in, per address over all processes. Default 100; 0: no limit.
    MAX_CONNECTIONS_PER_ADDRESS = Setting(100, minimum=0)
    #: Streams per topic over all processes. Default 0: no limit.
    MAX_CONNECTIONS_PER_TOPIC = Setting(0, minimum=0)
    #: Streams per process. Default 10,000; 0: no limit.
    MAX_CONNECTIONS = Setting(10_000, minimum=0)
    #: Requests per minute of one user in each process; of those not signed in, ten times as many per address. Long
    #: replays and snapshots, and many topics, count as more. Default 120; 0: no limit.
    CONNECTS_PER_MINUTE = Setting(120, minimum=0)
    #: Requests for streams that one process finds out about at a time, with livefeed.asgi.wrap(); the others wait, each
    #: address in a line of its own. Default 16; 0: no limit.
    CONNECTING = Setting(16, minimum=0)
    #: Seconds that the lease of a killed process still counts. Default 60.
    LEASE_SECONDS = Setting(60.0, minimum=3)
    #: Proxies of yours that append to X-Forwarded-For. Default 0: the peer's address is the client's.
    TRUSTED_PROXIES = Setting(0, minimum=0)
    #: Seconds after which an open stream's right to its topics is looked at again. Default 30.
    RECHECK_INTERVAL = Setting(30.0, minimum=1)
    #: Seconds that a signed topic name is good for. Default one day.
    SIGNATURE_SECONDS = Setting(86_400.0, minimum=1)

    @classmethod
    def declared(cls) -> list[Setting[Any]]:
        """Return every setting, in the order above."""
        return [value for value in vars(cls).values() if isinstance(value, Setting)]

    @property
    def prefix(self) -> str:
        """Return LIVEFEED_PREFIX, or a digest of SECRET_KEY: the same in every process of one site, and only there."""
        return self.PREFIX or hashlib.blake2b(django_settings.SECRET_KEY.encode(), digest_size=6).hexdigest()


settings = Settings()
