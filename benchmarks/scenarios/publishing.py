"""What does publishing cost the writer? Saves without livefeed, with it, and with django-eventstream's storage."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.bench import Bench, Result, Table
from benchmarks.measures import Measure, at_least, at_most
from benchmarks.peers import prepared
from benchmarks.places import SERVER_CORE, python
from benchmarks.processes import Conversation

KINDS = {
    "without": {"BENCH_KIND": "plain"},
    "livefeed": {"BENCH_KIND": "livefeed", "BENCH_LAYER": "pubsub"},
    "django-eventstream": {"BENCH_KIND": "eventstream", "BENCH_STORAGE": "1", "BENCH_EXTERNAL": "1"},
}
#: By its name: what it is, how many of them, and how large a multiple of what it takes without livefeed is allowed.
SAVES = {
    "atomic": ("a transaction with one save()", 40, 2.5),
    "autocommit": ("a save() in autocommit", 40, 3.0),
    "bulk": ("1,000 saves in one transaction", 1000, 1.5),
}
LAYERS = ("pubsub", "redis")


def run(bench: Bench) -> Result:
    """Do each job in each kind of process, in turn."""
    result = Result("publishing", str(__doc__).partition("\n")[0])
    result.tables = [saves(bench, result), sends(bench, result)]
    return result


def saves(bench: Bench, result: Result) -> Table:
    """Return the times of saves."""
    times: dict[str, dict[str, list[float]]] = {job: {kind: [] for kind in KINDS} for job in SAVES}
    with ExitStack() as stack:
        writers = {kind: stack.enter_context(writer(bench, env)) for kind, env in KINDS.items()}
        for round in range(bench.amount(15, 7)):
            for job, (_, count, _) in SAVES.items():
                if job != "bulk" or round < bench.amount(7, 3):
                    for kind, each in writers.items():
                        times[job][kind].append(float(each.ask(f"{job} {count}")[0]) * 1000)
    table = Table("milliseconds, PostgreSQL and Redis' pub/sub layer", list(KINDS))
    for job, (what, _, bound) in SAVES.items():
        measures = {kind: Measure.of(times[job][kind]) for kind in KINDS}
        table.rows[what] = list(measures.values())
        plain, ours, theirs = (each.median for each in measures.values())
        result.verdicts.append(at_most(bound, f"{what}, time", "the same without livefeed", ours / plain))
        if job != "bulk":
            result.verdicts.append(at_most(1, f"{what}, time", "django-eventstream with its storage", ours / theirs))
        print(f"  {what}: {plain:.2f}, {ours:.2f}, {theirs:.2f} ms", flush=True)
    return table


def sends(bench: Bench, result: Result) -> Table:
    """Return the times of what is published from a command or a worker."""
    jobs = {
        "group_send": "async_to_sync(group_send)",
        "fleeting": "publish(store=False)",
        "by_hand": "a row, and async_to_sync(group_send)",
        "stored": "publish()",
    }
    table = Table("milliseconds per call from a command, until the layer has it", list(jobs.values()))
    for layer in LAYERS:
        times: dict[str, list[float]] = {job: [] for job in jobs}
        with writer(bench, {"BENCH_KIND": "livefeed", "BENCH_LAYER": layer}) as process:
            process.ask("fleeting 1")
            for _ in range(bench.amount(9, 5)):
                for job in jobs:
                    times[job].append(float(process.ask(f"{job} 50")[0]) * 1000)
        measures = {job: Measure.of(found) for job, found in times.items()}
        table.rows[layer] = list(measures.values())
        # Like with like: what nobody keeps, and what is kept in the same database and can be asked for again.
        ratio = measures["group_send"].median / measures["fleeting"].median
        what = f"publishing from a command, {layer} layer, calls per second"
        result.verdicts.append(at_least(5, f"{what}: not kept", jobs["group_send"], ratio))
        ratio = measures["by_hand"].median / measures["stored"].median
        result.verdicts.append(at_least(1, f"{what}: kept", jobs["by_hand"], ratio))
    return table


def writer(bench: Bench, env: dict[str, str]) -> Conversation:
    """Start a process that saves."""
    made = {"DJANGO_SETTINGS_MODULE": "benchmarks.site.settings", **env}
    made.update(prepared(bench.services, made, 0))
    process = Conversation([python(), "-m", "benchmarks.site.writing"], env=made, core=SERVER_CORE)
    process.answer()
    bench.services.put_first()
    return process
