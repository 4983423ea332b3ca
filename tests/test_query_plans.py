"""A history that is large slows nothing: what each statement touches does not grow with the tables.

The database explains each statement in the moment it is run. ``pytest -rP tests/test_query_plans.py`` shows the plans,
LIVEFEED_TEST_ROWS=1000000 makes the history as large as that.
"""

from __future__ import annotations

import datetime
import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from livefeed.events import new_event
from livefeed.history import Retention
from livefeed.history.database import DatabaseHistory
from livefeed.leases import Claim, LeaseRequest
from livefeed.leases.database import WINDOW, DatabaseLeases
from livefeed.models import Lease, LeaseClaim, StoredEvent, StoredTopic

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(600)]

ROWS = int(os.environ.get("LIVEFEED_TEST_ROWS", 200_000))
#: Events of each of the many topics; half of all events are on one topic more.
PER_TOPIC = 20
DAY = 86_400.0


class Plan(NamedTuple):
    """How one statement was answered: the words of the database, rows and pages touched, the tables read in full."""

    sql: str
    text: str
    rows: int
    pages: int
    scanned: list[str]


# -- a large history --------------------------------------------------------------------------------------------------

FILL = """
INSERT INTO livefeed_event (topic, seq, uid, type, data, size, created_at, numbered_at)
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < %s)
SELECT name, n, %s, 'tick', %s, 102, moved_at, moved_at FROM livefeed_topic CROSS JOIN number
WHERE n <= head AND name LIKE %s
"""


def fill(rows: int) -> None:
    """Make a history of so many events."""
    now = datetime.datetime.now(datetime.UTC)
    topics = [
        StoredTopic(
            name=f"t:{number}" if number else "big",
            epoch="abcdef",
            head=PER_TOPIC if number else rows // 2,
            moved_at=now - datetime.timedelta(minutes=number % 1000, microseconds=number),
            trim_at=now + datetime.timedelta(seconds=DAY, minutes=-(number % 1000), microseconds=-number),
            trim_head=ROWS,
        )
        for number in range(rows // 2 // PER_TOPIC + 1)
    ]
    with connection.cursor() as cursor:
        for table in ("livefeed_event", "livefeed_topic"):
            cursor.execute(f"DELETE FROM {table}" if connection.vendor == "sqlite" else f"TRUNCATE TABLE {table}")
        StoredTopic.objects.bulk_create(topics, batch_size=1000)
        if connection.vendor == "mysql":
            cursor.execute("SET max_recursive_iterations = 10000000")
        elif connection.vendor == "sqlite":
            cursor.execute("PRAGMA synchronous = OFF")
        for name, head in (("big", rows // 2), ("t:%", PER_TOPIC)):
            cursor.execute(FILL, [head, "0" * 32, json.dumps("x" * 100), name])
        cursor.execute("ANALYZE TABLE livefeed_event, livefeed_topic" if connection.vendor == "mysql" else "ANALYZE")


# -- what the databases say -------------------------------------------------------------------------------------------


def explain_postgresql(cursor: Any, sql: str, params: Any) -> Plan:
    cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF, FORMAT JSON) {sql}", params)
    (top,) = cursor.fetchone()[0]
    nodes = list(parts(top["Plan"], "Node Type"))
    scans = [node for node in nodes if "Relation Name" in node and "Scan" in node["Node Type"]]
    rows = sum((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in scans)
    pages = top["Plan"]["Shared Hit Blocks"] + top["Plan"]["Shared Read Blocks"]
    scanned = [node["Relation Name"] for node in scans if node["Node Type"] == "Seq Scan"]
    words = ("Node Type", "Index Name", "Relation Name", "Index Cond", "Filter", "Actual Rows")
    text = "; ".join(" ".join(str(node[word]) for word in words if word in node) for node in nodes)
    return Plan(sql, text, int(rows), pages, scanned)


def explain_mysql(cursor: Any, sql: str, params: Any) -> Plan:
    cursor.execute(f"ANALYZE FORMAT=JSON {sql}", params)
    tables = list(parts(json.loads(cursor.fetchone()[0]), "table_name"))
    words = ("table_name", "access_type", "key", "used_key_parts", "r_rows", "r_loops")
    text = "; ".join(" ".join(str(table[word]) for word in words if word in table) for table in tables)
    rows = sum((table.get("r_rows") or 0) * (table.get("r_loops") or 1) for table in tables)
    whole = [table["table_name"] for table in tables if table.get("access_type") == "ALL"]
    scanned = [name for name in whole if not name.startswith("<")]  # a derived table is the statement's own
    return Plan(sql, text, int(rows), 0, scanned)


def explain_sqlite(cursor: Any, sql: str, params: Any) -> Plan:
    cursor.execute(f"EXPLAIN QUERY PLAN {sql}", params)
    steps = [step for *_, step in cursor.fetchall()]
    # A walk along an index is all right where it ends early, as for the newest topic.
    whole = [step.split()[1] for step in steps if step.startswith("SCAN") and " USING " not in step]
    events = [step.split()[1] for step in steps if step.startswith("SCAN livefeed_event")]
    return Plan(sql, "; ".join(steps), 0, 0, whole + events)


EXPLAIN: dict[str, Callable[[Any, str, Any], Plan]] = {
    "postgresql": explain_postgresql,
    "mysql": explain_mysql,
    "sqlite": explain_sqlite,
}


def parts(tree: Any, key: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON document that have this key."""
    if isinstance(tree, dict):
        if key in tree:
            yield tree
        for value in tree.values():
            yield from parts(value, key)
    elif isinstance(tree, list):
        for value in tree:
            yield from parts(value, key)


@contextmanager
def explained() -> Iterator[list[Plan]]:
    """Collect the plans of this connection's statements; what the explaining changed is taken back each time."""
    plans: list[Plan] = []
    explaining = False

    def wrapper(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal explaining
        # An INSERT of values reads no table; only PostgreSQL tells how many pages it touches.
        wanted = ("SELECT", "UPDATE", "DELETE", *(["INSERT"] if connection.vendor == "postgresql" else []))
        if not explaining and sql.lstrip("(").startswith(wanted):
            explaining = True
            try:
                with transaction.atomic(), connection.cursor() as cursor:
                    plans.append(EXPLAIN[connection.vendor](cursor, sql, params))
                    transaction.set_rollback(True)
            finally:
                explaining = False
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper):
        yield plans


# -- what the history does --------------------------------------------------------------------------------------------


def policy(topic: str) -> Retention:
    return Retention(DAY, ROWS)


def busy(topic: str) -> Retention:
    return Retention(DAY, 5 if topic == "t:3" else ROWS)


def record(history: DatabaseHistory) -> None:
    with transaction.atomic():
        history.record([new_event(topic, "x", "tick") for topic in ("big", "t:1", "new") for _ in range(5)])


def number(history: DatabaseHistory) -> None:
    assert sum(len(stretch.events) for stretch in history.number(["big", "t:1", "new"])) == 15


def append(history: DatabaseHistory) -> None:
    history.append([new_event("big", "x", "tick") for _ in range(5)])


def nothing_left(history: DatabaseHistory) -> None:
    assert history.leftovers(frozenset()) == ([], frozenset())


def some_left(history: DatabaseHistory) -> None:
    history.record([new_event("t:1", "x", "tick")])
    _, seen = history.leftovers(frozenset())
    stretches, _ = history.leftovers(seen)
    assert len(stretches) == 1


def heads(history: DatabaseHistory) -> None:
    assert len(history.heads(["big", *(f"t:{number}" for number in range(1, 20))])) == 20


def moved(history: DatabaseHistory) -> None:
    _, marker = history.moved(None)
    history.moved(marker)


def read_a_page(history: DatabaseHistory) -> None:
    for after in (0, StoredTopic.objects.get(name="big").head // 2):
        assert len(history.read("big", after, 200).events) == 200


def read_a_page_of_large_events(history: DatabaseHistory) -> None:
    assert 0 < len(history.read("big", 100, 200, 5_000).events) < 200


def read_at_the_end(history: DatabaseHistory) -> None:
    head = StoredTopic.objects.get(name="big").head
    assert len(history.read("big", head - 1, 200).events) == 1


def trim_where_nothing_is_due(history: DatabaseHistory) -> None:
    assert history.trim(policy) == 0


def trim_what_is_too_old(history: DatabaseHistory) -> None:
    passed = datetime.timedelta(seconds=DAY + 1)
    StoredEvent.objects.filter(topic="t:2").update(numbered_at=F("numbered_at") - passed)
    StoredTopic.objects.filter(name="t:2").update(trim_at=F("trim_at") - passed)
    history.trim(policy)
    assert history.heads(["t:2"])["t:2"].floor >= PER_TOPIC


def trim_what_is_too_much(history: DatabaseHistory) -> None:
    assert history.trim(busy, ["t:3"]) == PER_TOPIC - 5


def renew_an_epoch(history: DatabaseHistory) -> None:
    assert history.renew_epoch(["big"]) == 1


WORK = [
    record,
    number,
    append,
    nothing_left,
    some_left,
    heads,
    moved,
    read_a_page,
    read_a_page_of_large_events,
    read_at_the_end,
    trim_where_nothing_is_due,
    trim_what_is_too_old,
    trim_what_is_too_much,
    renew_an_epoch,
]


def plans_of_all() -> dict[str, list[Plan]]:
    history = DatabaseHistory()
    history.trim(policy)  # the first one looks at every topic
    found = {}
    for work in WORK:
        with explained() as plans:
            work(history)
        found[work.__name__] = plans
    return found


def show(plans: dict[str, list[Plan]]) -> None:
    for name, some in plans.items():
        print(f"\n{name}")
        for plan in some:
            print(f"  {plan.sql[:110]}\n      {plan.text}  ({plan.rows} rows, {plan.pages} pages)")


def test_no_statement_reads_a_whole_table_or_touches_more_in_a_larger_history() -> None:
    fill(ROWS // 10)
    before = plans_of_all()
    fill(ROWS)
    after = plans_of_all()
    show(after)
    for name, plans in after.items():
        assert [plan.text for plan in plans if plan.scanned] == [], name
        assert len(plans) == len(before[name]), name
        for plan, earlier in zip(plans, before[name], strict=True):
            assert plan.rows <= earlier.rows + 10, (name, plan, earlier)
            assert plan.pages <= 2 * earlier.pages + 64, (name, plan, earlier)


def test_the_first_trimming_looks_at_each_topic_and_not_at_its_events() -> None:
    fill(ROWS // 10)
    history = DatabaseHistory()
    history.trim(policy)
    with explained() as plans:
        DatabaseHistory().trim(policy)
    topics = StoredTopic.objects.count()
    assert [plan.text for plan in plans if "livefeed_event" in plan.scanned] == []
    assert sum(plan.rows for plan in plans) <= 2 * topics + 10


# -- leases -----------------------------------------------------------------------------------------------------------

#: Connections, each of a user of its own and all on one topic, which has room for ten times as many.
CONNECTIONS = 20_000
ROOM = 10 * CONNECTIONS


def fill_leases(count: int) -> None:
    """Connect so many, a hundred to a process."""
    expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    LeaseClaim.objects.all().delete()
    Lease.objects.all().delete()
    leases = [
        Lease(
            holder=f"user:{number}",
            token=f"token{number}",
            client=f"page{number}",
            process=f"process{number // 100}",
            session=f"session{number}",
            topics="busy",
            expires_at=expires,
        )
        for number in range(count)
    ]
    Lease.objects.bulk_create(leases, batch_size=1000)
    keys = Lease.objects.order_by("pk").values_list("pk", flat=True)
    claims = [
        LeaseClaim(lease_id=key, holder=holder, slot=slot)
        for number, (key, place) in enumerate(zip(keys, random.sample(range(ROOM), count), strict=True))
        for holder, slot in ((f"user:{number}", 0), ("topic:busy", place))
    ]
    LeaseClaim.objects.bulk_create(claims, batch_size=1000)
    with connection.cursor() as cursor:
        mysql = connection.vendor == "mysql"
        cursor.execute("ANALYZE TABLE livefeed_lease, livefeed_claim" if mysql else "ANALYZE")


def asking(user: str, client: str, *others: str) -> LeaseRequest:
    claims = (Claim(user, 10), Claim("topic:busy", ROOM), *(Claim(holder, 5) for holder in others))
    return LeaseRequest(claims, client, "another", "another", ("busy",))


def connect(leases: DatabaseLeases) -> None:
    leases.acquire(asking("user:new", "page", "address:a", "session:s"))


def connect_where_one_expired(leases: DatabaseLeases) -> None:
    Lease.objects.filter(token="token9").update(expires_at=Now() - datetime.timedelta(hours=1))
    leases.acquire(LeaseRequest((Claim("user:9", 1), Claim("topic:busy", ROOM)), "other", "another"))
    assert not Lease.objects.filter(token="token9").exists()


def take_over(leases: DatabaseLeases) -> None:
    leases.acquire(asking("user:7", "page7"))


def take_over_on_another_network(leases: DatabaseLeases) -> None:
    leases.acquire(asking("user:7", "page7", "address:b"))


def renew(leases: DatabaseLeases) -> None:
    assert len(leases.renew("process5")) == 100


def release(leases: DatabaseLeases) -> None:
    leases.release(["token11", "token12"])


def revoke(leases: DatabaseLeases) -> None:
    assert leases.revoke(holder="user:13") == 1
    assert leases.revoke(session="session14") == 1
    assert leases.revoke(tokens=["token15"]) == 1


def look_for_some(leases: DatabaseLeases) -> None:
    assert len(list(leases.connections(holder="user:16"))) == 1
    assert len(list(leases.connections(session="session16"))) == 1


LEASE_WORK = [
    connect,
    connect_where_one_expired,
    take_over,
    take_over_on_another_network,
    renew,
    release,
    revoke,
    look_for_some,
]


def plans_of_leases() -> dict[str, list[Plan]]:
    found = {}
    for work in LEASE_WORK:
        with explained() as plans:
            work(DatabaseLeases())
        found[work.__name__] = plans
    return found


def test_many_connections_make_none_of_them_more_expensive() -> None:
    fill_leases(CONNECTIONS // 10)
    before = plans_of_leases()
    fill_leases(CONNECTIONS)
    after = plans_of_leases()
    show(after)
    for name, plans in after.items():
        assert [plan.text for plan in plans if plan.scanned] == [], name
        assert len(plans) == len(before[name]), name
        for plan, earlier in zip(plans, before[name], strict=True):
            assert plan.rows <= earlier.rows + 2 * WINDOW, (name, plan, earlier)
            assert plan.pages <= 2 * earlier.pages + 64, (name, plan, earlier)
