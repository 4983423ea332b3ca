"""Two servers of different make on PostgreSQL and Redis behind nginx, without sticky sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.pages import Reader
from tests.e2e.servers import Nginx, blog_post, nginx_site, serve, site_env

pytestmark = [pytest.mark.browser, pytest.mark.needs("postgres", "redis", "nginx")]


@pytest.fixture
def env(demo_postgres_url: str, redis_url: str) -> dict[str, str]:
    return site_env(database_url=demo_postgres_url, redis_url=redis_url)


@pytest.fixture
def front(demo_postgres_url: str, redis_url: str, tmp_path: Path) -> Iterator[Nginx]:
    """nginx with three sites: "both" gives requests to the two servers in turn, the others to one of them."""
    databases = {"database_url": demo_postgres_url, "redis_url": redis_url}
    with serve("daphne", tmp_path, **databases) as daphne, serve("uvicorn", tmp_path, **databases) as uvicorn:
        sites = {"both": [daphne, uvicorn], "daphne": [daphne], "uvicorn": [uvicorn]}
        texts = {name: nginx_site(name, upstreams) for name, upstreams in sites.items()}
        with Nginx(tmp_path, texts) as nginx:
            yield nginx


def test_what_a_management_command_writes_appears_on_both_servers(
    front: Nginx, env: dict[str, str], window: Callable, screenshots: Path
) -> None:
    readers = {name: Reader(window(front.url(name))).ready() for name in ("daphne", "uvicorn", "both")}
    blog_post("From the command line", env=env)
    for name, reader in readers.items():
        reader.sees("From the command line")
        reader.page.screenshot(path=screenshots / f"cluster-{name}.png")
    blog_post("And another", env=env)
    for reader in readers.values():
        reader.sees("And another", "From the command line")


def test_the_servers_behind_nginx_are_two(front: Nginx, window: Callable) -> None:
    upstreams = {}
    for name in ("daphne", "uvicorn"):
        page = window("about:blank")
        response = page.goto(front.url(name))
        upstreams[name] = response.header_value("x-upstream")
    assert len(set(upstreams.values())) == len(upstreams)
