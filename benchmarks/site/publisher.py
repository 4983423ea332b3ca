"""Publish from a process of its own, as commands and workers do.

``python -m benchmarks.site.publisher``, then a line per job on stdin: ``COUNT RATE BYTES FILE TOPIC…``. Events 1 to
COUNT are published at RATE per second (0: without a pause) on the topics in turn. FILE gets the moment at which each
commit was over, in nanoseconds of CLOCK_MONOTONIC, as unsigned 64-bit numbers. Each job is answered with the seconds
it took, when all of it is on its way; ``cursor TOPIC`` is answered with the topic's cursor.
"""

import os
import sys
import time
from array import array

import django


def main() -> None:
    """Do the jobs that come on stdin."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.site.settings")
    django.setup()
    from django.conf import settings

    from benchmarks.site.settling import settle

    publish = publisher()
    print("ready", flush=True)
    for line in sys.stdin:
        if line.startswith("cursor "):
            from livefeed import cursor

            print(cursor(line.split()[1]), flush=True)
            continue
        count, rate, size, path, *topics = line.split()
        began = time.monotonic()
        moments = run(publish, int(count), float(rate), int(size), topics)
        seconds = time.monotonic() - began
        with open(path, "wb") as file:
            moments.tofile(file)
        if settings.KIND == "livefeed":
            settle(set(topics))
        print(f"{seconds:.6f}", flush=True)


def publisher():
    """Return what publishes on a topic."""
    from django.conf import settings

    if settings.KIND == "livefeed":
        from livefeed import publish

        return publish
    from django_eventstream import send_event

    return lambda topic, data: send_event(topic, "message", data)


def run(publish, count: int, rate: float, size: int, topics: list[str]) -> array:
    """Publish; return when each was committed."""
    moments = array("Q")
    began = time.monotonic()
    for n in range(1, count + 1):
        if rate and (pause := began + (n - 1) / rate - time.monotonic()) > 0:
            time.sleep(pause)
        data = {"n": n, "pad": ""}
        data["pad"] = "x" * max(0, size - len(f'{{"n":{n},"pad":""}}'))
        publish(topics[n % len(topics)], data)
        moments.append(time.monotonic_ns())
    return moments


if __name__ == "__main__":
    main()
