"""The settings: lazy, typed, with the defaults that the documentation states."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from livefeed.conf import Setting, Settings
from livefeed.conf import settings as livefeed_settings

DEFAULTS = {
    "HISTORY": "livefeed.history.database.DatabaseHistory",
    "LEASES": "livefeed.leases.database.DatabaseLeases",
    "DATABASE": "default",
    "REDIS": "",
    "CHANNEL_LAYER": "default",
    "PREFIX": "",
    "RETENTION": 86_400,
    "RETENTION_EVENTS": 10_000,
    "LOOK_INTERVAL": 1,
    "RELAY_PAUSE": 0.01,
    "TAIL_BYTES": 64 * 1024 * 1024,
    "MAX_REPLAY": 10_000,
    "MAX_EVENT_BYTES": 262_144,
    "KEEPALIVE": 15,
    "SEND_TIMEOUT": 60,
    "MAX_TOPICS": 50,
    "DRAIN_SECONDS": 3,
    "ALLOWED_ORIGINS": [],
    "AUTHENTICATION": ["livefeed.authentication.token", "livefeed.authentication.session"],
    "MAX_CONNECTIONS_PER_USER": 10,
    "MAX_CONNECTIONS_PER_SESSION": 10,
    "MAX_CONNECTIONS_PER_ADDRESS": 100,
    "MAX_CONNECTIONS_PER_TOPIC": 0,
    "MAX_CONNECTIONS": 10_000,
    "CONNECTS_PER_MINUTE": 120,
    "CONNECTING": 16,
    "LEASE_SECONDS": 60,
    "TRUSTED_PROXIES": 0,
    "RECHECK_INTERVAL": 30,
    "SIGNATURE_SECONDS": 86_400,
}


@pytest.mark.parametrize(("name", "default"), DEFAULTS.items())
def test_each_setting_has_its_default(settings: Any, name: str, default: object) -> None:
    if hasattr(settings, f"LIVEFEED_{name}"):  # the tests' own settings have it
        delattr(settings, f"LIVEFEED_{name}")
    assert getattr(livefeed_settings, name) == default


def test_no_setting_is_forgotten_here() -> None:
    assert {setting.name for setting in Settings.declared()} == {f"LIVEFEED_{name}" for name in DEFAULTS}


def test_a_setting_is_read_when_it_is_asked_for(settings: Any) -> None:
    settings.LIVEFEED_KEEPALIVE = 7.5
    assert livefeed_settings.KEEPALIVE == 7.5
    settings.LIVEFEED_KEEPALIVE = 8.5
    assert livefeed_settings.KEEPALIVE == 8.5


def test_the_class_gives_the_setting_itself() -> None:
    setting = Settings.KEEPALIVE
    assert isinstance(setting, Setting)
    assert (setting.name, setting.default) == ("LIVEFEED_KEEPALIVE", 15.0)


@pytest.mark.parametrize(
    ("default", "value", "minimum", "right"),
    [
        (1.0, 2, None, True),
        (1.0, 2.5, None, True),
        (1.0, "2", None, False),
        (1.0, True, None, False),
        (1.0, float("nan"), 0, False),
        (1.0, 0, 0, True),
        (1.0, -0.1, 0, False),
        (1, 2.0, None, False),
        (1, False, None, False),
        ("a", "", None, True),
        ("a", None, None, False),
        ([], ["a"], None, True),
        ([], ("a", "b"), None, True),
        ([], "a", None, False),
        ([], ["a", 7], None, False),
        ([], None, None, False),
    ],
)
def test_values_are_judged_by_the_type_of_the_default_and_the_minimum(
    settings: Any, default: Any, value: Any, minimum: float | None, right: bool
) -> None:
    setting: Setting[Any] = Setting(default, minimum=minimum)
    setting.__set_name__(Settings, "TRIED")
    settings.LIVEFEED_TRIED = value
    error = setting.error()
    assert (error is None) is right
    assert right or "LIVEFEED_TRIED" in str(error)


def test_the_prefix_is_drawn_from_the_secret_key_and_does_not_show_it(settings: Any) -> None:
    settings.SECRET_KEY = "one"
    first = livefeed_settings.prefix
    settings.SECRET_KEY = "two"
    assert livefeed_settings.prefix != first
    settings.SECRET_KEY = "one"
    assert livefeed_settings.prefix == first
    assert "one" not in first
    settings.LIVEFEED_PREFIX = "mine"
    assert livefeed_settings.prefix == "mine"


def test_importing_livefeed_needs_no_settings_and_loads_nothing_of_the_reading_half() -> None:
    code = (
        "import sys, livefeed\n"
        "reading = set('hub tail streams views roster access pages html asgi testing checks admin urls'.split())\n"
        "loaded = {name.removeprefix('livefeed.') for name in sys.modules if name.startswith('livefeed.')}\n"
        "print(sorted(loaded & reading))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"PATH": ""})
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
