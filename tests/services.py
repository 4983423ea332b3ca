"""What some tests need from the machine: is it there, how does one get it, and a fresh, private piece of it."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from tests import npm
from tests.processes import Process, accepts, free_port

POSTGRES = os.environ.get("LIVEFEED_TEST_POSTGRES", "postgres://postgres@127.0.0.1:5432/postgres")
MARIADB = os.environ.get("LIVEFEED_TEST_MARIADB", "mysql://root@127.0.0.1:3306/")
CONNECT_SECONDS = 3


@dataclass(frozen=True)
class Need:
    """Something that a test needs: `lack()` says why the machine hasn't got it ("" if it has), `cure` how to get it."""

    lack: Callable[[], str]
    cure: str


def find(*programs: str) -> str | None:
    """Return the path of the first of these programs that is installed; looks into the system directories too."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    return next((found for program in programs if (found := shutil.which(program, path=path))), None)


def chromium() -> str | None:
    """Return the path of Chromium (or of the program that LIVEFEED_TEST_CHROMIUM names)."""
    return os.environ.get("LIVEFEED_TEST_CHROMIUM") or find("chromium", "chromium-browser", "google-chrome")


def firefox() -> str | None:
    """Return the path of Firefox (or of the program that LIVEFEED_TEST_FIREFOX names)."""
    return os.environ.get("LIVEFEED_TEST_FIREFOX") or find("firefox-esr", "firefox")


def mini_browser() -> str | None:
    """Return the path of the small browser that comes with WebKitGTK, in a directory that depends on the machine."""
    return next(map(str, Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser")), None)


def _lacks_package(*names: str) -> str:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return f"the Python package {missing[0]} is not installed" if missing else ""


def _lacks_program(*names: str) -> str:
    return "" if find(*names) else f"{names[0]} is not installed"


def _lacks_postgres() -> str:
    if lack := _lacks_package("psycopg"):
        return lack
    import psycopg

    try:
        psycopg.connect(POSTGRES, connect_timeout=CONNECT_SECONDS).close()
    except psycopg.Error as error:
        return f"no PostgreSQL at {_without_password(POSTGRES)} ({str(error).splitlines()[0]})"
    return ""


def _lacks_mariadb() -> str:
    if lack := _lacks_package("MySQLdb"):
        return lack
    import MySQLdb

    try:
        _connect_mariadb().close()
    except MySQLdb.Error as error:
        return f"no MariaDB at {_without_password(MARIADB)} ({error.args[-1]})"
    return ""


def _lacks_redis() -> str:
    return _lacks_package("redis", "channels_redis") or _lacks_program("redis-server", "valkey-server")


def _lacks_chromium() -> str:
    return _lacks_package("playwright") or ("" if chromium() else "Chromium is not installed")


def _lacks_firefox() -> str:
    return _lacks_package("websockets") or ("" if firefox() else "Firefox is not installed")


def _lacks_webkit() -> str:
    return _lacks_program("WebKitWebDriver") or _lacks_program("Xvfb") or ("" if mini_browser() else "no MiniBrowser")


def _lacks_time() -> str:
    wanted = {"all", "time"} & set(os.environ.get("LIVEFEED_REQUIRE", "").split(","))
    return "" if wanted or os.environ.get("LIVEFEED_SLOW") else "they take a minute each"


def _lacks_registry() -> str:
    command = [sys.executable, "-m", "pip", "--timeout", "5", "--retries", "0", "index", "versions", "pip"]
    done = subprocess.run(command, capture_output=True, check=False)
    return "" if done.returncode == 0 else "pip reaches no package registry"


def _lacks_npm() -> str:
    if npm.is_installed():
        return ""
    if lack := _lacks_program("npm"):
        return lack
    ask = ["view", "htmx.org", "version", "--fetch-retries=0", "--fetch-timeout=5000"]
    done = subprocess.run([find("npm") or "npm", *ask], capture_output=True, check=False)
    return "" if done.returncode == 0 else "npm reaches no package registry"


NEEDS = {
    "postgres": Need(
        cache(_lacks_postgres),
        "start PostgreSQL and set LIVEFEED_TEST_POSTGRES=postgres://user:password@host:port/database "
        "(a user who may create databases)",
    ),
    "mariadb": Need(
        cache(_lacks_mariadb),
        "pip install mysqlclient, start MariaDB and set LIVEFEED_TEST_MARIADB=mysql://user:password@host:port/ "
        "(a user who may create databases)",
    ),
    "redis": Need(cache(_lacks_redis), "install redis-server (it need not run; the tests start their own)"),
    "redis-server": Need(cache(_lacks_redis), "install redis-server (it need not run; the tests start their own)"),
    "chromium": Need(cache(_lacks_chromium), "install chromium, or set LIVEFEED_TEST_CHROMIUM to its path"),
    "firefox": Need(cache(_lacks_firefox), "install firefox-esr, or set LIVEFEED_TEST_FIREFOX to its path"),
    "webkit": Need(cache(_lacks_webkit), "install webkit2gtk-driver and xvfb (Debian's names)"),
    "nginx": Need(cache(lambda: _lacks_program("nginx")), "install nginx (it need not run)"),
    "node": Need(cache(lambda: _lacks_program("node")), "install nodejs"),
    "atheris": Need(
        cache(lambda: _lacks_package("atheris")),
        "pip install atheris (there are wheels for CPython on Linux, x86-64)",
    ),
    "gcc": Need(cache(lambda: _lacks_program("gcc")), "install gcc and libc6-dev"),
    "openssl": Need(cache(lambda: _lacks_program("openssl")), "install openssl"),
    "time": Need(_lacks_time, "set LIVEFEED_SLOW=1"),
    "registry": Need(cache(_lacks_registry), "give pip a way to a package registry"),
    "npm": Need(cache(_lacks_npm), "install npm, and give it a way to a package registry"),
}


@contextmanager
def fresh_postgres(*, template: str | None = None) -> Iterator[str]:
    """Create a PostgreSQL database, yield its URL, and drop it. `template`: the URL of a database to copy."""
    import psycopg

    name = _fresh_name()
    copy = f' TEMPLATE "{urlsplit(template).path.lstrip("/")}"' if template else ""
    with psycopg.connect(POSTGRES, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"{copy}'.encode())
        try:
            yield _with_database(POSTGRES, name)
        finally:
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@contextmanager
def fresh_mariadb() -> Iterator[str]:
    """Create a MariaDB database, yield its URL, and drop it."""
    name = _fresh_name()
    _execute_mariadb(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
    try:
        yield _with_database(MARIADB, name)
    finally:
        _execute_mariadb(f"DROP DATABASE `{name}`")


class RedisServer(Process):
    """A Redis server of the test's own, which keeps nothing on disk."""

    def __init__(self, directory: Path) -> None:
        port = free_port()
        program = find("redis-server", "valkey-server") or "redis-server"
        nothing_kept = ["--save", "", "--appendonly", "no", "--dir", str(directory)]
        super().__init__(
            f"redis on port {port}",
            [program, "--port", str(port), "--bind", "127.0.0.1", *nothing_kept],
            log=directory / f"redis-{port}.log",
            ready=lambda: accepts(port),
        )
        self.url = f"redis://127.0.0.1:{port}/0"


def _execute_mariadb(statement: str) -> None:
    connection = _connect_mariadb()
    try:
        connection.cursor().execute(statement)
    finally:
        connection.close()


def _connect_mariadb():  # type: ignore[no-untyped-def]
    import MySQLdb

    url = urlsplit(MARIADB)
    return MySQLdb.connect(
        host=url.hostname or "127.0.0.1",
        port=url.port or 3306,
        user=unquote(url.username or "root"),
        passwd=unquote(url.password or ""),
        connect_timeout=CONNECT_SECONDS,
    )


def _fresh_name() -> str:
    return f"livefeed_test_{secrets.token_hex(6)}"


def _with_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return url.replace(f":{parts.password}@", ":***@") if parts.password else url
