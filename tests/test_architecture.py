"""The order of the modules: each imports only what stands to its left, at the top of the file."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import livefeed

from .processes import run

PACKAGE = Path(livefeed.__file__).parent

#: What only a setting brings, by its dotted path.
BACKENDS = {
    *("redis_server", "history.rows", "history.postgresql", "history.database", "history.memory"),
    *("history.redis_scripts", "history.redis"),
    *("leases.postgresql", "leases.database", "leases.redis_scripts", "leases.redis"),
}
#: What `import livefeed` may bring, besides those.
WRITING = """
    exceptions < redis_server < conf < backends < signals < sse < topics < tokens < events < revocations
    < cursors < models < transactions < history.base < history < history.rows < history.postgresql
    < history.database < history.memory < history.redis_scripts < history.redis < leases.base < leases
    < leases.postgresql < leases.database < leases.redis_scripts < leases.redis < broker < announcing < backlog < relay
    < commits < debts < publishing < revoking < values < feeds < ordering < items < changes < receivers < livemodel
    < registry < livefeed
"""
READING = """
    trimming < threads < pool < chores < loops < outlets < cohorts < window < tail < stepping < flushing < resuming <
    membership < hub < batches < addresses < sessions < accounts < authentication < viewers < rates < origins < access <
    personal < streams < personal_streams < responses < refusing < roster < pages < links < listing < texts < script <
    html < snapshots < visits < views < urls < door < sockets < daphne < goodbyes < guard < entrance < handler < asgi <
    checks < admin < testing.capturing < testing.streams < testing.threads < testing.histories < testing <
    templatetags < templatetags.livefeed < management < management.commands < management.commands.livefeed_connections <
    management.commands.livefeed_new_epoch < management.commands.livefeed_prune < management.commands.livefeed_token <
    migrations < migrations.0001_initial < migrations.0002_claims < apps
"""
LEFT = [name.strip() for name in WRITING.split("<")]
ORDER = LEFT + [name.strip() for name in READING.split("<")]
MODULES = {
    "livefeed" if path.parent == PACKAGE and path.stem == "__init__" else _name: path
    for path in sorted(PACKAGE.rglob("*.py"))
    if (_name := ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"))
}


def imports(module: str) -> Iterator[tuple[str, bool]]:
    """Yield what a module imports, by absolute name, and whether it does so at the top of the file."""
    path = MODULES[module]
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        top = node in tree.body
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, top
        elif isinstance(node, ast.ImportFrom):
            yield from ((name, top) for name in _from(node, module, path))


def _from(node: ast.ImportFrom, module: str, path: Path) -> Iterator[str]:
    package = ["livefeed", *([] if module == "livefeed" else module.split("."))]
    if path.stem != "__init__":
        package.pop()
    base = package[: len(package) - node.level + 1] if node.level else []
    source = ".".join([*base, *((node.module or "").split(".") if node.module else [])])
    for alias in node.names:
        inner = f"{source}.{alias.name}"
        yield inner if inner.removeprefix("livefeed.") in MODULES else source


def own(name: str) -> str | None:
    """Return the name of one of our modules as it stands in the order; None for what is not ours."""
    if name == "livefeed":
        return name
    return name.removeprefix("livefeed.") if name.startswith("livefeed.") else None


def test_every_module_has_its_place_in_the_order() -> None:
    assert sorted(ORDER) == sorted(MODULES)


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_from_its_left(module: str) -> None:
    left = set(ORDER[: ORDER.index(module)])
    wrong = {name for name, _ in imports(module) if (ours := own(name)) and ours not in left}
    assert not wrong


@pytest.mark.parametrize("module", [module for module in ORDER if module != "apps"])
def test_a_module_imports_at_the_top_of_its_file(module: str) -> None:
    """``apps.ready()`` is where Django itself asks for imports of models."""
    assert [name for name, top in imports(module) if not top] == []


def test_only_the_broker_imports_channels() -> None:
    users = {module for module in ORDER for name, _ in imports(module) if name.partition(".")[0].startswith("channels")}
    assert users == {"broker"}


def test_nothing_imports_daphne_or_twisted_that_a_site_without_them_needs() -> None:
    packages = {"daphne", "twisted", "channels_redis", "redis", "psycopg", "MySQLdb", "rest_framework"}
    users = {module for module in ORDER for name, top in imports(module) if top and name.partition(".")[0] in packages}
    assert users == {"redis_server"}


def test_only_a_setting_brings_what_needs_redis() -> None:
    """The way to Redis is imported by what is kept there, and that by nobody: settings name it."""
    needing = {"redis_server", "history.redis_scripts", "history.redis", "leases.redis_scripts", "leases.redis"}
    users = {module for module in ORDER for name, _ in imports(module) if own(name) in needing}
    assert users <= needing


def test_the_order_is_one_that_these_tests_would_notice() -> None:
    assert "livefeed.history" in {name for name, _ in imports("publishing")}
    assert "livefeed.broker" in {name for name, _ in imports("announcing")}
    assert "livefeed.backends" in {name for name, _ in imports("history.base")}
    assert ("livefeed.checks", False) in set(imports("apps"))


IMPORT = """
import sys
import livefeed
import django.apps
assert not django.apps.apps.ready
print(*sorted(name.removeprefix("livefeed.") for name in sys.modules if name.partition(".")[0] == "livefeed"))
"""


def test_livefeed_can_be_imported_before_django_is_set_up_and_brings_only_the_writing_half() -> None:
    loaded = run([sys.executable, "-W", "error", "-c", IMPORT], env={"DJANGO_SETTINGS_MODULE": None}, limit=60).split()
    assert set(loaded) <= set(LEFT) - {"models"} - BACKENDS
    assert not set(loaded) & {"hub", "tail", "streams", "views", "access", "roster", "asgi", "pool", "html"}
    assert {"publishing", "receivers", "registry", "broker"} <= set(loaded)


PUBLISH = """
import threading
import django
django.setup()
import livefeed
livefeed.publish("build", 1, store=False)
print([thread.name for thread in threading.enumerate()])
"""


def test_a_process_that_only_writes_has_one_thread_more_and_no_hub() -> None:
    env = {"DJANGO_SETTINGS_MODULE": "tests.settings", "LIVEFEED_TEST_DATABASE": None}
    out = run([sys.executable, "-c", PUBLISH], env=env, limit=60)
    assert out.strip() == "['MainThread', 'livefeed-broker']"
