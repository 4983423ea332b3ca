"""A deterministic simulation of the whole path, from a writer's transaction to a reader's screen, under faults.

Everything runs in one process and, of its many threads and event loops, one step at a time; a seeded scheduler chooses
whose. Simulated are what livefeed stands on: time, threads, event loops, the database or the Redis that holds the
history, the Channels layer, the network, the browsers. What is livefeed's own is the real thing: publishing, backlog,
broker, hub, tails, subscriptions, streams, roster, cursors.

    python -m tests.simulation --seeds 1000          # run seeds 1 to 1000
    python -m tests.simulation --seed 42             # run one, and tell its story if it breaks a promise
    python -m tests.simulation --seed 42 --story     # tell it in any case
    python -m tests.simulation --bugs                # show that deliberate bugs are found

Files, from the ground up: ``world`` (time and choice), ``loop`` and ``threads`` (what runs), ``store``, ``backend`` and
``history`` (the database), ``layer``, ``network``, ``readers`` and ``writers``, ``faults``, ``scenario`` (one run),
``bugs`` (deliberate ones).
"""
