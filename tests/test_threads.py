"""Threads that are made when they are needed, keep their database connections, and end when they are not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.db.backends.signals import connection_created

from livefeed import threads as module
from livefeed.threads import Threads, is_lent, kept_connections, tidy
from tests.reading import LIMIT, eventually, pool_threads


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads(0)
    yield made
    made.shutdown()


def this_thread() -> threading.Thread:
    return threading.current_thread()


def done(threads: Threads, *jobs: Any) -> list[Any]:
    """Do jobs one after the other; return their results."""
    return [threads.submit(job).result(LIMIT) for job in jobs]


async def gone() -> None:
    await eventually(lambda: not pool_threads(), "the threads have ended")


def test_one_job_after_the_other_needs_one_thread(threads: Threads) -> None:
    assert len(set(done(threads, *[this_thread] * 20))) == 1


def test_jobs_at_the_same_time_get_a_thread_each(threads: Threads) -> None:
    together = threading.Barrier(8)
    futures = [threads.submit(together.wait, LIMIT) for _ in range(8)]
    assert sorted(future.result(LIMIT) for future in futures) == list(range(8))


async def test_there_are_never_more_threads_than_allowed_and_no_job_is_forgotten() -> None:
    threads, lock, now, most = Threads(3), threading.Lock(), [0], [0]
    pause = threading.Event()

    def work() -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        pause.wait(0.001)
        with lock:
            now[0] -= 1

    futures = [threads.submit(work) for _ in range(200)]
    for future in futures:
        future.result(LIMIT)
    assert most[0] == 3
    threads.shutdown()
    await gone()


async def test_a_thread_that_is_not_needed_ends_and_the_next_job_gets_a_new_one(threads: Threads) -> None:
    (first,) = done(threads, this_thread)
    await gone()
    (second,) = done(threads, this_thread)
    assert first is not second


async def test_after_a_crowd_only_those_live_on_for_whom_there_is_work(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(8)
    for future in [threads.submit(together.wait, LIMIT) for _ in range(8)]:
        future.result(LIMIT)
    await eventually(lambda: done(threads, this_thread) and len(pool_threads()) == 1, "one is left, which works")


async def test_a_closed_executor_still_does_what_it_is_given(threads: Threads) -> None:
    threads.shutdown()
    assert done(threads, lambda: 7) == [7]
    await gone()


def test_a_job_that_fails_fails_for_who_asked_and_the_thread_goes_on(threads: Threads) -> None:
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 // 0).result(LIMIT)
    assert done(threads, lambda: 7) == [7]


def test_a_job_that_nobody_waits_for_any_more_is_not_begun() -> None:
    threads, go, began = Threads(1), threading.Event(), []
    first = threads.submit(go.wait, LIMIT)
    second = threads.submit(began.append, 1)
    assert second.cancel()
    go.set()
    assert first.result(LIMIT)
    with pytest.raises(CancelledError):
        second.result()
    assert done(threads, lambda: 7) == [7]
    assert began == []
    threads.shutdown()


# -- database connections ---------------------------------------------------------------------------------------------


def use() -> Any:
    """Ask the database something as a request does; return the connection to it."""
    with kept_connections():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return connections["default"].connection


async def test_a_connection_is_kept_from_one_request_to_the_next_and_closed_with_its_thread(
    transactional_db: None, threads: Threads
) -> None:
    first, second, wrapper = done(threads, use, use, lambda: connections["default"])
    assert first is second is not None
    await gone()
    assert wrapper.connection is None


def test_a_site_that_says_how_old_a_connection_may_get_is_obeyed(
    transactional_db: None, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_age() -> Any:
        monkeypatch.setitem(connections["default"].settings_dict, "CONN_MAX_AGE", 3600)
        return use()

    def old() -> None:
        connections["default"].close_at = 0.0

    first, second, _, third, fourth = done(threads, with_age, use, old, use, use)
    assert first is second is third
    assert fourth is not third


def test_a_connection_of_a_pool_is_given_back(
    transactional_db: None, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_a_pool(settle: Any) -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        with monkeypatch.context() as patched:
            patched.setattr("livefeed.threads.is_lent", lambda connection: True)  # Django's own needs psycopg_pool
            settle()
        return connections["default"].connection

    def request() -> None:
        with kept_connections():
            pass

    assert done(threads, lambda: of_a_pool(request), lambda: of_a_pool(tidy)) == [None, None]


@pytest.mark.parametrize(("options", "lent"), [({"pool": True}, True), ({"pool": {"max_size": 4}}, True), ({}, False)])
def test_a_connection_is_lent_where_django_keeps_a_pool(options: dict[str, Any], lent: bool) -> None:
    settings = {**connections["default"].settings_dict, "OPTIONS": options}
    assert is_lent(type(connections["default"])(settings)) is lent


def say(statement: str) -> Any:
    """Say something to the database as a middleware does; return the connection to it."""
    with kept_connections():
        with connection.cursor() as cursor:
            cursor.execute(statement)
        return connections["default"].connection


TEMPORARY = "CREATE TEMPORARY TABLE livefeed_seen (id integer)"


def test_a_connection_whose_session_was_changed_is_not_the_next_ones(transactional_db: None, threads: Threads) -> None:
    first, second, third = done(threads, use, lambda: say(TEMPORARY), use)
    assert first is second
    assert third is not second
    assert done(threads, use)[0] is third, "a new one is as it was made"


def test_where_a_site_keeps_connections_itself_their_sessions_are_its_own(
    transactional_db: None, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed() -> Any:
        monkeypatch.setitem(connections["default"].settings_dict, "CONN_MAX_AGE", None)
        return say(TEMPORARY)

    first, second = done(threads, changed, use)
    assert first is second


def test_what_receivers_say_to_a_new_connection_is_how_it_is_made(transactional_db: None, threads: Threads) -> None:
    def greet(connection: Any, **kwargs: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(TEMPORARY)

    receivers, connection_created.receivers = connection_created.receivers, []
    connection_created.connect(greet)
    connection_created.receivers += receivers
    connection_created.sender_receivers_cache.clear()
    try:
        first, second = done(threads, use, use)
    finally:
        connection_created.receivers = receivers
        connection_created.sender_receivers_cache.clear()
    assert first is second


@pytest.mark.parametrize(
    "statement",
    [
        "SET app.user = 'ann'",
        "set role ann",
        "SET SESSION statement_timeout = 5",
        "SELECT set_config('app.user', 'ann', false)",
        'SELECT set_config(name, %s, false) FROM "settings"',
        "SELECT enter_tenant(%s)",
        "SELECT pg_advisory_lock(1)",
        "SELECT GET_LOCK('a', 1)",
        "SELECT 1; SET app.user = 'ann'",
        "LISTEN news",
        "PRAGMA foreign_keys = OFF",
        "CALL enter_tenant(1)",
    ],
)
def test_statements_that_outlast_a_request_are_known(statement: str) -> None:
    assert not module.PASSING.match(statement)


@pytest.mark.parametrize(
    "statement",
    [
        'SELECT "auth_user"."id" FROM "auth_user" WHERE "auth_user"."id" = %s LIMIT 21',
        "SELECT 1",
        '(SELECT "a" FROM "b") UNION (SELECT "a" FROM "c")',
        'UPDATE "a" SET "b" = %s',
        "INSERT INTO a VALUES (1)",
        "DELETE FROM a",
        "\n  WITH a AS (SELECT 1) SELECT * FROM a",
        "BEGIN",
        'SAVEPOINT "s1"',
        'RELEASE SAVEPOINT "s1"',
        'ROLLBACK TO SAVEPOINT "s1"',
        "SET LOCAL role ann",
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
    ],
)
def test_statements_that_end_with_their_transaction_keep_a_connection(statement: str) -> None:
    assert module.PASSING.match(statement)


def test_a_connection_that_lay_idle_and_broke_is_replaced_before_the_request(
    transactional_db: None, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        monkeypatch.setattr(connections["default"], "is_usable", lambda: False)

    first, _, second = done(threads, use, broken, use)
    assert first is second, "in a burst nobody asks"
    monkeypatch.setattr(module, "FRESH", -1.0)
    (third,) = done(threads, use)
    assert third is not second


def test_a_transaction_that_a_request_left_open_ends_with_it(transactional_db: None, threads: Threads) -> None:
    def leave_open() -> Any:
        with kept_connections():
            transaction.set_autocommit(False)
            return use()

    first, second = done(threads, leave_open, use)
    assert first is not second
