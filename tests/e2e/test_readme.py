"""The reader of the quickstart itself: a marker that does nothing would make the quickstart's test pass for nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.readme import Follower, Step, steps


def test_steps_come_in_their_order_with_verb_path_and_text() -> None:
    text = (
        "# Q\n<!-- run -->\n```sh\nls\n```\n\nThen:\n\n<!-- file: a/b.py -->\n\n```python\nx = 1\n```\n```\nlook\n```\n"
    )
    assert steps(text) == [Step("run", "", "ls\n"), Step("file", "a/b.py", "x = 1\n")]


def test_a_marker_without_a_block_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 markers but 0 blocks"):
        steps("<!-- append: urls.py -->\nNo block here.\n")


def test_a_follower_keeps_the_directory_that_a_command_went_to(tmp_path: Path) -> None:
    follower = Follower(tmp_path, {})
    follower.follow(Step("run", "", "mkdir site\ncd site\n"))
    follower.follow(Step("file", "news/a.py", "a = 1\n"))
    follower.follow(Step("append", "news/a.py", "b = 2\n"))
    assert (tmp_path / "site" / "news" / "a.py").read_text() == "a = 1\n\nb = 2\n"
    follower.follow(Step("replace", "news/a.py", "c = 3\n"))
    assert (tmp_path / "site" / "news" / "a.py").read_text() == "c = 3\n"


@pytest.mark.parametrize(("verb", "there"), [("file", True), ("append", False), ("replace", False)])
def test_a_step_that_does_not_fit_what_is_there_is_an_error(tmp_path: Path, verb: str, there: bool) -> None:
    if there:
        (tmp_path / "a.py").write_text("")
    with pytest.raises(ValueError, match=r"a\.py"):
        Follower(tmp_path, {}).follow(Step(verb, "a.py", "x\n"))


def test_a_command_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with 1"):
        Follower(tmp_path, {}).follow(Step("run", "", "false\ntrue\n"))
