"""Two servers of different make on PostgreSQL and Redis behind nginx, without sticky sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.pages import Reader
from tests.e2e.servers import Nginx, Server, blog_post, nginx_site, serve, site_env

pytestmark = [pytest.mark.browser, pytest.mark.needs("postgres", "redis", "nginx")]


class Cluster(NamedTuple):
    """nginx has a site for each server, by its kind, and "both", which gives requests to the two in turn."""

    nginx: Nginx
    servers: dict[str, Server]


@pytest.fixture
def env(demo_postgres_url: str, redis_url: str) -> dict[str, str]:
    return site_env(database_url=demo_postgres_url, redis_url=redis_url)


@pytest.fixture
def cluster(demo_postgres_url: str, redis_url: str, tmp_path: Path) -> Iterator[Cluster]:
    databases = {"database_url": demo_postgres_url, "redis_url": redis_url}
    with serve("daphne", tmp_path, **databases) as daphne, serve("uvicorn", tmp_path, **databases) as uvicorn:
        sites = {"both": [daphne, uvicorn], "daphne": [daphne], "uvicorn": [uvicorn]}
        texts = {name: nginx_site(name, upstreams) for name, upstreams in sites.items()}
        with Nginx(tmp_path, texts) as nginx:
            yield Cluster(nginx, {"daphne": daphne, "uvicorn": uvicorn})


def test_what_a_management_command_writes_appears_on_both_servers(
    cluster: Cluster, env: dict[str, str], window: Callable, screenshots: Path
) -> None:
    readers = {name: Reader(window(cluster.nginx.url(name))).ready() for name in ("daphne", "uvicorn", "both")}
    for name, server in cluster.servers.items():
        response = readers[name].page.reload()
        assert response.header_value("x-upstream") == f"127.0.0.1:{server.port}"
        readers[name].ready()

    blog_post("From the command line", env=env)
    for name, reader in readers.items():
        reader.sees("From the command line")
        reader.picture(screenshots / f"cluster-{name}.png")
    blog_post("And another", env=env)
    for reader in readers.values():
        reader.sees("And another", "From the command line")


def test_a_reader_whose_server_ends_goes_on_at_the_other(
    cluster: Cluster, env: dict[str, str], window: Callable
) -> None:
    readers = [Reader(window(cluster.nginx.url("both"))).ready() for _ in range(4)]
    before = readers[0].titles()
    blog_post("While both are there", env=env)
    cluster.servers["daphne"].stop()
    blog_post("While one is gone", env=env)
    for reader in readers:
        reader.sees("While one is gone", "While both are there", *before[:3])
