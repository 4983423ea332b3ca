"""Hostile input: whatever a client sends or a site publishes, livefeed refuses it by name or handles it exactly.

A *target* makes cases and checks them against something independent: the parser of `reference.py`, written from the
standard alone, or a model of what must come. A *case* is plain JSON, so that one that was found can be read, kept
(`corpus/<target>.jsonl`) and replayed. Who checks whom:

    python -m tests.fuzzing --cases 200000           # all targets, guided by coverage (atheris)
    python -m tests.fuzzing --target view            # one of them; --help lists them
    python -m tests.fuzzing --blind                  # without atheris: made and mutated at random, from --seed on
    python -m tests.fuzzing --bugs                   # shows that bugs on purpose are found

atheris instruments livefeed and the parts of Django that read requests, and keeps a case as a seed when it reaches code
that none reached before; the cases are changed as JSON (`mutation.py`), never as bytes that no longer parse. The view
runs whole, middleware and all, from a raw ASGI scope; only what would be done in threads is done at once, which makes
it quick and each case the same every time (`site.py`).

`tests/test_fuzzing.py` replays the corpus, runs the same properties with hypothesis, and finds every bug on purpose.
"""
