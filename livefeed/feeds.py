"""LiveFeed: which model changes become events, on which topics, with what data, and who may see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from django.db import models

from .events import Event
from .exceptions import FeedError
from .topics import prefix, validate_topic
from .values import column_names, value_of


class LiveFeed:
    """Subclass it in ``livefeeds.py``, name a model and the fields that may leave the server, and ``@register`` it::

        @register
        class ArticleFeed(LiveFeed):
            model = Article
            fields = ["title", "url"]

    Saves, deletions and many-to-many changes become the events ``created``, ``updated`` and ``deleted`` on the topics
    that :meth:`get_topics` names. A feed without a model has a ``name`` and is published to with ``publish()``.
    """

    #: The model whose changes become events, or None.
    model: ClassVar[type[models.Model] | None] = None
    #: The feed's name and its main topic. Default: ``app_label.model_name``. It owns this topic and ``name:<key>``.
    name: ClassVar[str] = ""
    #: What leaves the server: columns, many-to-many fields, paths (``author__name``), attributes, properties, methods.
    #: ``"__all__"`` for every column.
    fields: ClassVar[Sequence[str] | Literal["__all__"]] = ()
    #: Whether everybody may read it.
    public: ClassVar[bool] = False
    #: Whether events carry their type in an ``event:`` line. Clients that only take unnamed ones (Turbo, htmx 4) need
    #: False; they then find the data alone, and a ``str`` as it is, not quoted as JSON.
    event_names: ClassVar[bool] = True
    #: Seconds that an event is kept, from its numbering. Default LIVEFEED_RETENTION; 0 keeps by count only.
    retention: ClassVar[float | None] = None
    #: Events kept per topic. Default LIVEFEED_RETENTION_EVENTS; 0 keeps by age only.
    retention_events: ClassVar[int | None] = None
    #: Whether items are rendered on the server, by the feed's template, once for all readers: an event then brings the
    #: HTML of its item and no fields. It is rendered in the site's own language and time zone.
    html: ClassVar[bool] = False
    #: How many items the widget shows.
    limit: ClassVar[int] = 20
    #: Where the widget puts new items.
    insert: ClassVar[Literal["prepend", "append"]] = "prepend"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__ and cls.model is not None:
            cls.name = cls.model._meta.label_lower

    def get_topics(self, instance: Any) -> list[str]:
        """Return the topics that a change of this instance belongs to: ``name`` and ``name:<key>``, or none.

        Where a save changes them, the topics left get ``deleted`` and those entered get ``created``. For that the row
        is read before the change: exactly in a transaction; in autocommit two writers who move the same row at once
        may leave it on a topic that only one of them saw (:class:`~livefeed.LiveModel` prevents that).
        """
        return [self.name]

    def get_data(self, instance: Any) -> dict[str, Any]:
        """Return an event's data, by default the ``fields`` of the instance. ``pk`` is added where it is missing."""
        return {name: value_of(instance, name) for name in self.field_names}

    def get_data_for(self, user: Any, event: Event) -> Any:
        """Return an event's data as this user is to see it, or None for nothing at all. May be an ``async def``.

        By default ``event.data`` for everybody, and only then events are encoded once for all. A feed that overrides
        this is asked in a thread, once for each user and event, with the user as of now, also for events of long ago;
        for those of every type (``deleted`` has only ``pk``), and for the widget's items (as ``created``).
        What fails is hidden and logged. Users who may read the topic can tell how many events were hidden from them.
        """
        return event.data

    def has_view_permission(self, user: Any, topic: str) -> Any:
        """Return whether this user may read this topic. May be an ``async def``.

        By default everybody where the feed is ``public``, else who has Django's ``view`` permission on the model.
        """
        if self.public:
            return True
        if self.model is None:
            return False
        options = self.model._meta
        has_perm = getattr(user, "has_perm", None)  # users of a model of the site's own may have no permissions
        return has_perm is not None and has_perm(f"{options.app_label}.view_{options.model_name}")

    def get_view_permissions(self, asked: Sequence[tuple[Any, str]]) -> Any:
        """Return the answers of :meth:`has_view_permission` to many questions (user, topic), in their order.

        Override it where the rule asks the database, so that the regular look at all open streams is one query and
        not one for each user and topic. May be an ``async def``.
        """
        return [self.has_view_permission(user, topic) for user, topic in asked]

    def get_queryset(self, topic: str) -> models.QuerySet[Any]:
        """Return the items of a topic, in the order of the page. The widget shows ``limit`` of them, those nearest to
        where new ones come in: the first for a feed that prepends, the last for one that appends.

        By default all of the model, by its Meta.ordering, else by key. A topic ``name:<key>`` has no default.
        """
        if self.model is None or topic != self.name:
            raise FeedError(
                f"{type(self).__name__} can't tell which items belong to the topic {topic!r}. "
                "Override get_queryset(topic)."
            )
        items = self.model._default_manager.all()
        return items if items.ordered else items.order_by("-pk" if self.insert == "prepend" else "pk")

    # -- what the rest of livefeed asks ---------------------------------------------------------------------------

    @property
    def field_names(self) -> Sequence[str]:
        """The names in ``fields``, spelled out."""
        if self.fields == "__all__":
            return column_names(self.model) if self.model is not None else ()
        return self.fields

    @property
    def is_personal(self) -> bool:
        """Whether viewers may each see something else."""
        return self.overrides("get_data_for")

    @property
    def answers_in_bulk(self) -> bool:
        """Whether :meth:`get_view_permissions` is the rule: not where a subclass made a narrower one beneath it."""
        rules = {"get_view_permissions", "has_view_permission"}
        nearest = next(cls for cls in type(self).__mro__ if not rules.isdisjoint(vars(cls)))
        return nearest is not LiveFeed and "get_view_permissions" in vars(nearest)

    def overrides(self, *hooks: str) -> bool:
        """Tell whether this feed's class has its own version of one of these methods."""
        return any(getattr(type(self), hook) is not getattr(LiveFeed, hook) for hook in hooks)

    def owns(self, topic: str) -> bool:
        """Tell whether a topic is this feed's."""
        return prefix(topic) == self.name

    def topics_of(self, instance: models.Model) -> list[str]:
        """Return :meth:`get_topics`, refusing what is not a list of this feed's topics with :exc:`FeedError`."""
        topics = self.get_topics(instance)
        if isinstance(topics, str) or not isinstance(topics, Sequence):
            raise FeedError(f"{type(self).__name__}.get_topics() returned {topics!r}. Return a list of topics.")
        for topic in topics:
            if not self.owns(validate_topic(topic)):
                raise FeedError(
                    f"{type(self).__name__}.get_topics() returned {topic!r}, which is not its own. "
                    f'Return "{self.name}" or "{self.name}:<key>".'
                )
        return list(dict.fromkeys(topics))

    def data_of(self, instance: models.Model) -> dict[str, Any]:
        """Return :meth:`get_data` with the key; refuse what is not a mapping with :exc:`FeedError`."""
        data = self.get_data(instance)
        if not isinstance(data, Mapping):
            raise FeedError(f"{type(self).__name__}.get_data() returned {data!r}. Return a dict.")
        return {"pk": instance.pk, **data}
