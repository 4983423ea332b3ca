from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, models, transaction
from django.db.models.signals import post_delete, post_save

from livefeed import LiveModel
from livefeed.models import StoredEvent

from .testapp.models import Article, Task
from .writing import Doomed, in_thread, interrupted, rolled_back, stored, told

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

TASK = "testapp.task"


@pytest.fixture
def dying() -> Iterator[Callable[[Any, Any], None]]:
    """Let what follows a change fail, as where a process dies between the row and what it owes for it."""
    connected: list[tuple[Any, Any]] = []

    def die(**kwargs: Any) -> None:
        raise Doomed

    def connect(signal: Any, sender: Any) -> None:
        signal.connect(die, sender=sender)
        connected.append((signal, sender))

    yield connect
    for signal, sender in connected:
        signal.disconnect(die, sender=sender)


def test_saves_and_deletions_become_events() -> None:
    task = Task.objects.create(title="One")
    task.title = "Two"
    task.save()
    task.save(update_fields=["title"])
    pk = task.pk
    assert task.delete() == (1, {"testapp.Task": 1})
    assert told(TASK) == [
        ("created", {"id": pk, "pk": pk, "title": "One"}),
        ("updated", {"id": pk, "pk": pk, "title": "Two"}),
        ("updated", {"id": pk, "pk": pk, "title": "Two"}),
        ("deleted", {"pk": pk}),
    ]


def test_a_row_and_its_event_are_committed_together() -> None:
    seen: list[int] = []
    with interrupted('INSERT INTO "testapp_task"', lambda: seen.append(in_thread(Task.objects.count))):
        Task(title="One").save()
    assert seen == [0], "others saw the row before its event was written"
    assert Task.objects.count() == 1
    assert [event.type for event in stored(TASK)] == ["created"]


def test_what_fails_after_a_save_takes_the_row_and_the_event_with_it(dying: Callable[[Any, Any], None]) -> None:
    task = Task.objects.create(title="One")
    dying(post_save, Task)
    task.title = "phantom"
    with pytest.raises(Doomed):
        task.save()
    with pytest.raises(Doomed):
        Task.objects.create(title="phantom")
    assert [row.title for row in Task.objects.all()] == ["One"]
    assert [data["title"] for _, data in told(TASK)] == ["One"]
    assert not StoredEvent.objects.filter(seq=None).exists()


def test_what_fails_after_a_deletion_takes_it_back(dying: Callable[[Any, Any], None]) -> None:
    task = Task.objects.create(title="One")
    dying(post_delete, Task)
    with pytest.raises(Doomed):
        task.delete()
    assert Task.objects.count() == 1
    assert [event.type for event in stored(TASK)] == ["created"]


def test_without_the_mixin_the_row_stays_in_autocommit(dying: Callable[[Any, Any], None]) -> None:
    """The window that the mixin closes."""
    dying(post_save, Article)
    with pytest.raises(Doomed):
        Article.objects.create(title="One")
    assert Article.objects.count() == 1


def test_it_is_part_of_a_transaction_around_it() -> None:
    with rolled_back():
        Task.objects.create(title="phantom")
    with transaction.atomic():
        with rolled_back():
            Task.objects.create(title="phantom")
        Task.objects.create(title="real")
        assert stored(TASK) == []
    assert [data["title"] for _, data in told(TASK)] == ["real"]


async def test_its_async_methods_publish() -> None:
    task = await Task.objects.acreate(title="One")
    task.title = "Two"
    await task.asave()
    await task.adelete()
    assert [type for type, _ in await sync_to_async(told)(TASK)] == ["created", "updated", "deleted"]
    await sync_to_async(connections.close_all)()


def test_the_transaction_is_on_the_database_that_is_written() -> None:
    used: list[str | None] = []

    class Base:
        def save(self, *, using: str | None = None) -> str:
            used.append(next((alias for alias in connections if connections[alias].in_atomic_block), None))
            return "saved"

        def delete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, bool]:
            used.append(next((alias for alias in connections if connections[alias].in_atomic_block), None))
            return 1, keep_parents

    class Thing(LiveModel, Base):
        def _alias(self, using: str | None) -> str:
            return using or "default"

    assert Thing().save(using="other") == "saved"
    assert Thing().delete(using="other", keep_parents=True) == (1, True)
    assert Thing().delete("other") == (1, False)
    assert Thing().save() == "saved"
    assert used == ["other", "other", "other", "default"]


def test_behind_models_model_it_is_refused_because_it_would_do_nothing() -> None:
    def declare(*bases: type) -> type:
        meta = type("Meta", (), {"app_label": "testapp", "abstract": True})
        return type("Spare", bases, {"__module__": __name__, "Meta": meta})

    with pytest.raises(TypeError, match=r"Spare: LiveModel does nothing behind models\.Model\. Put it first"):
        declare(models.Model, LiveModel)
    assert issubclass(declare(declare(LiveModel, models.Model)), LiveModel)


def test_by_default_the_database_is_the_one_that_the_routers_name() -> None:
    assert Task()._alias(None) == "default"
    assert Task()._alias("other") == "other"
