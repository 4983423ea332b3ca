"""A site with a user model of its own, in a process of its own: its settings can't be these."""

from __future__ import annotations

import re
import sys

from tests.processes import run


def test_sessions_tokens_signed_names_leases_and_the_recheck_work_for_users_of_any_kind() -> None:
    options = ["--ds=tests.custom_user.settings", "-p", "no:cacheprovider", "-p", "no:xdist", "-q", "-rs"]
    out = run(
        [sys.executable, "-m", "pytest", "tests/custom_user/cases.py", *options],
        env={"LIVEFEED_TEST_DATABASE": None},
        limit=110,
    )
    assert int(re.findall(r"(\d+) passed", out)[-1]) >= 15
    assert "skipped" not in out
