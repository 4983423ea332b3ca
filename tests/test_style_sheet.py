"""The default look: readable in light and dark, the page's to override, from right to left, and still."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import livefeed

SHEET = (Path(livefeed.__file__).parent / "static" / "livefeed" / "livefeed.css").read_text()
SCHEMES = re.findall(r"--livefeed-([a-z-]+): light-dark\((#\w+), (#\w+)\)", SHEET)
LIGHT = {name: light for name, light, _ in SCHEMES}
DARK = {name: dark for name, _, dark in SCHEMES}
#: What browsers paint as the page's background where it says color-scheme.
CANVAS = [(LIGHT, "#ffffff"), (DARK, "#121212")]


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour (WCAG 2.2, definition)."""
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    shares = [int(digits[index : index + 2], 16) / 255 for index in (0, 2, 4)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


def test_the_contrast_is_computed_as_wcag_does() -> None:
    assert contrast("#000", "#fff") == 21
    assert round(contrast("#777", "#ffffff"), 2) == 4.48


@pytest.mark.parametrize(("colours", "canvas"), CANVAS, ids=["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(colours: dict[str, str], canvas: str) -> None:
    pairs = {
        "status": (colours["muted"], canvas),
        "status on what was added": (colours["muted"], colours["added"]),
        "new items": (colours["on-accent"], colours["accent"]),
        "message": (colours["ink"], colours["surface"]),
    }
    assert {name: contrast(*pair) for name, pair in pairs.items() if contrast(*pair) < 4.5} == {}


@pytest.mark.parametrize(("colours", "canvas"), CANVAS, ids=["light", "dark"])
def test_marks_and_focus_have_the_contrast_of_what_is_no_text(colours: dict[str, str], canvas: str) -> None:
    marks = {name: contrast(colours[name], canvas) for name in ("live", "waiting", "stopped", "accent", "muted")}
    assert {name: found for name, found in marks.items() if found < 3} == {}


def test_browsers_without_schemes_get_the_light_one() -> None:
    plain, _, _ = SHEET.partition("@supports")
    assert dict(re.findall(r"--livefeed-([a-z-]+): (#\w+);", plain)) == LIGHT


def test_everything_is_in_the_layer() -> None:
    without_comments = re.sub(r"/\*.*?\*/", "", SHEET, flags=re.DOTALL)
    before, found, rest = without_comments.partition("@layer livefeed {")
    assert (before.strip(), bool(found)) == ("", True)
    depth = 1
    for index, character in enumerate(rest):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            assert rest[index + 1 :].strip() == ""
            break
    assert depth == 0


def test_nothing_is_left_or_right_and_no_text_has_a_size_in_pixels() -> None:
    assert re.findall(r"[\w-]*\b(?:left|right|width|height)\b[\w-]*\s*:", SHEET) == []
    assert re.findall(r"font(?:-size)?:[^;]*px", SHEET) == []


def test_what_moves_moves_only_where_motion_is_welcome() -> None:
    outside = re.sub(r"@media \(prefers-reduced-motion: no-preference\) \{.*?\n  \}\n", "", SHEET, flags=re.DOTALL)
    assert "animation:" in SHEET
    assert not re.search(r"animation:|transition:|scroll-behavior", outside)
