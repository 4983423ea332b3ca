"""Save and publish as a command or a worker does, and take the time: ``python -m benchmarks.site.writing``.

Jobs come on stdin, one a line, and are answered with seconds: ``atomic N``, ``autocommit N``, ``bulk N``,
``fleeting N``, ``stored N``, ``group_send N``, ``by_hand N``.
"""

import os
import sys
import time

import django


def main() -> None:
    """Do the jobs that come on stdin."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.site.settings")
    django.setup()
    from benchmarks.site.models import Article

    article = Article.objects.create(title="A title", url="https://example.com/")
    print("ready", flush=True)
    for line in sys.stdin:
        name, count = line.split()
        print(f"{JOBS[name](article, int(count)):.6f}", flush=True)


def atomic(article, count: int) -> float:
    """Save in a transaction each; return the seconds that one took."""
    from django.db import transaction

    began = time.perf_counter()
    for _ in range(count):
        with transaction.atomic():
            article.save()
    return (time.perf_counter() - began) / count


def autocommit(article, count: int) -> float:
    """Save without a transaction; return the seconds that one took."""
    began = time.perf_counter()
    for _ in range(count):
        article.save()
    return (time.perf_counter() - began) / count


def bulk(article, count: int) -> float:
    """Save so many times in one transaction; return the seconds that all took."""
    from django.db import transaction

    began = time.perf_counter()
    with transaction.atomic():
        for _ in range(count):
            article.save()
    return time.perf_counter() - began


def fleeting(article, count: int) -> float:
    """Publish what is not stored, and wait until the layer has it; return the seconds that one took."""
    from livefeed import broker, publish

    began = time.perf_counter()
    for n in range(count):
        publish("news", {"n": n}, store=False)
    broker._outboxes.flush(10)
    return (time.perf_counter() - began) / count


def stored(article, count: int) -> float:
    """Publish, and wait until the layer has it; return the seconds that one took."""
    from benchmarks.site.settling import settle
    from livefeed import publish

    began = time.perf_counter()
    for n in range(count):
        publish("news", {"n": n})
    settle(["news"])
    return (time.perf_counter() - began) / count


def group_send(article, count: int) -> float:
    """Send as everybody does from sync code; return the seconds that one took."""
    from asgiref.sync import async_to_sync
    from channels.layers import get_channel_layer

    began = time.perf_counter()
    for n in range(count):
        async_to_sync(get_channel_layer().group_send)("news", {"type": "event", "body": {"n": n}})
    return (time.perf_counter() - began) / count


def by_hand(article, count: int) -> float:
    """Keep a message in a table, and send it as everybody does from sync code; return the seconds that one took."""
    from asgiref.sync import async_to_sync
    from channels.layers import get_channel_layer

    from benchmarks.site.models import Message

    began = time.perf_counter()
    for n in range(count):
        Message.objects.create(topic="news", body={"n": n})
        async_to_sync(get_channel_layer().group_send)("news", {"type": "event", "body": {"n": n}})
    return (time.perf_counter() - began) / count


JOBS = {
    "atomic": atomic,
    "autocommit": autocommit,
    "bulk": bulk,
    "fleeting": fleeting,
    "stored": stored,
    "group_send": group_send,
    "by_hand": by_hand,
}

if __name__ == "__main__":
    main()
