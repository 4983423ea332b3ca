"""The demo site as real processes: one of four ASGI servers, and nginx in front, each on a free port."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.processes import ROOT, Process, accepts, free_port, run
from tests.services import find

APPLICATION = "project.asgi:application"
SECTION = "harbour"
COMMANDS: dict[str, list[str]] = {
    "daphne": ["daphne", "-e", "tcp:port={port}:interface=127.0.0.1:backlog=2048", "{application}"],
    "uvicorn": ["uvicorn", "--host", "127.0.0.1", "--port", "{port}", "{application}"],
    "granian": ["granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", "{application}"],
    "hypercorn": ["hypercorn", "--bind", "127.0.0.1:{port}", "{application}"],
}
KINDS = tuple(COMMANDS)

# What no server may write, however a client or a signal ends a stream.
TROUBLE = re.compile(
    r"Traceback \(most recent call last\)|was destroyed but it is pending|was never (retrieved|awaited)"
)

NGINX_SITE = ROOT / "docs" / "nginx.conf"
NGINX_MAIN = """\
{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 4096; }}
http {{
    include /etc/nginx/mime.types;
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/sites/*.conf;
}}
"""


def site_env(*, database_url: str, redis_url: str = "", settings: Mapping[str, object] | None = None) -> dict[str, str]:
    """Return the environment in which the demo site runs; `settings` are laid over those of `project.settings`."""
    env = {"DJANGO_SETTINGS_MODULE": "project.settings", "DATABASE_URL": database_url, "REDIS_URL": redis_url}
    if settings:
        env["DJANGO_SETTINGS_MODULE"] = "tests.e2e.site_settings"
        env["LIVEFEED_TEST_SETTINGS"] = json.dumps(settings)
    return env


def manage(*arguments: str, env: Mapping[str, str], limit: float = 300) -> str:
    """Run `manage.py` with these arguments and return what it printed."""
    return run([sys.executable, "manage.py", *arguments], env=env, limit=limit)


def holders(database_url: str) -> list[str]:
    """Return whose connections there are, one for each, as the whole cluster sees them in a SQLite database."""
    with sqlite3.connect(urlsplit(database_url).path[1:]) as database:
        rows = database.execute("SELECT holder FROM livefeed_lease WHERE holder NOT LIKE 'chore:%'")
        return [holder for (holder,) in rows]


def blog_post(title: str, *, env: Mapping[str, str]) -> None:
    """Publish an entry from a process of its own."""
    manage("blog_post", "--title", title, "--text", "Written on the command line.", "--section", SECTION, env=env)


class Server(Process):
    """One ASGI server process that serves the demo."""

    def __init__(
        self,
        kind: str,
        directory: Path,
        *,
        env: Mapping[str, str],
        application: str = APPLICATION,
        port: int | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.kind = kind
        self.port = port or free_port()
        words = [word.format(port=self.port, application=application) for word in COMMANDS[kind]]
        super().__init__(
            f"{kind} on port {self.port}",
            [sys.executable, "-m", *words, *options],
            log=directory / f"{kind}-{self.port}.log",
            ready=lambda: accepts(self.port),
            env=env,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def trouble(self) -> list[str]:
        """Return the lines of the log that tell of an exception nobody handled."""
        return [line for line in self.log().splitlines() if TROUBLE.search(line)]


@contextmanager
def serve(
    kind: str,
    directory: Path,
    *,
    database_url: str,
    redis_url: str = "",
    settings: Mapping[str, object] | None = None,
    options: Sequence[str] = (),
) -> Iterator[Server]:
    """Serve the demo with an ASGI server (one of KINDS) until the block ends; trouble in its log is an error then.

    Not so for Hypercorn: it cancels the tasks of open connections at its end and leaves their exceptions lying about.
    """
    env = site_env(database_url=database_url, redis_url=redis_url, settings=settings)
    with Server(kind, directory, env=env, options=options) as server:
        yield server
    if kind != "hypercorn" and (trouble := server.trouble()):
        raise AssertionError(f"{server.name} logged trouble: {trouble}\n{server.log()}")


class Nginx(Process):
    """An nginx with sites made from docs/nginx.conf, each on a port of its own."""

    def __init__(self, directory: Path, sites: Mapping[str, str]) -> None:
        self.ports = {name: free_port() for name in sites}
        user = "user root;" if os.geteuid() == 0 else ""  # else nobody, who may not enter the test's directory
        (directory / "sites").mkdir()
        (directory / "nginx.conf").write_text(NGINX_MAIN.format(directory=directory, user=user))
        for name, text in sites.items():
            (directory / "sites" / f"{name}.conf").write_text(text.replace("{port}", str(self.ports[name])))
        super().__init__(
            "nginx",
            [find("nginx") or "nginx", "-e", "stderr", "-p", str(directory), "-c", str(directory / "nginx.conf")],
            log=directory / "nginx.log",
            ready=lambda: all(map(accepts, self.ports.values())),
        )

    def url(self, site: str, *, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.ports[site]}"


def nginx_site(
    name: str,
    upstreams: Sequence[Server],
    *,
    read_timeout: int | None = None,
    certificate: Path | None = None,
    static: Path | None = None,
) -> str:
    """Return docs/nginx.conf for these upstreams, with `{port}` for its port: as it stands but for names and addresses.

    `read_timeout`: seconds of silence after which nginx gives up. `certificate`: a file with a key and a certificate;
    without one the site is served in the clear. `static`: where the static files were collected; without one they are
    asked for from the servers. Every line that has to change must be there exactly once, so that the
    tests and the documentation can't drift apart.
    """
    text = NGINX_SITE.read_text()
    servers = "\n".join(f"    server 127.0.0.1:{server.port};" for server in upstreams)
    text = _replace(text, "    server 127.0.0.1:8001;\n    server 127.0.0.1:8002;", servers)
    text = _replace(text, "upstream django {", f"upstream django_{name} {{")
    text = re.sub(r"http://django;", f"http://django_{name};", text)
    text = re.sub(r"server_name example\.com;", "server_name 127.0.0.1;", text)
    text = _replace(text, "    listen 80;", f"    listen 127.0.0.1:{free_port()};")
    text = _replace(text, "alias /srv/example.com/static/;", f"alias {static or '/nowhere'}/;")
    if not static:
        text = _replace(text, "location /static/ {", "location /elsewhere/ {")
    header = "    add_header X-Upstream $upstream_addr always;"
    if certificate:
        text = _replace(text, "    listen 443 ssl http2;", f"    listen 127.0.0.1:{{port}} ssl http2;\n{header}")
        text = re.sub(r"/etc/ssl/example\.com\.(pem|key);", f"{certificate};", text)
    else:
        text = _replace(text, "    listen 443 ssl http2;", f"    listen 127.0.0.1:{{port}};\n{header}")
        text = re.sub(r"\n    ssl_certificate(_key)? [^;]+;", "", text)
    if read_timeout:
        text = re.sub(r"proxy_read_timeout \d+s;", f"proxy_read_timeout {read_timeout}s;", text)
    return text


def _replace(text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        raise ValueError(f"{NGINX_SITE} has {old!r} {text.count(old)} times; the tests rely on exactly one.")
    return text.replace(old, new)
