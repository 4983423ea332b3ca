"""The elements speak the page's language, every text is translated, and the compiled catalogues are the sources'."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.template import Context, Template
from django.test import RequestFactory
from django.utils import translation

import livefeed
from livefeed.texts import feed_texts, new_items
from tests.services import find

PACKAGE = Path(livefeed.__file__).parent
LOCALE = PACKAGE / "locale"
LANGUAGES = sorted(path.name for path in LOCALE.iterdir())


def calls() -> Iterator[tuple[str, list[str]]]:
    """Yield which function of gettext's is called anywhere, and with which texts."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(getattr(node, "func", None), "id", "")
            if isinstance(node, ast.Call) and name in {"_", "pgettext", "npgettext"}:
                yield name, [str(argument.value) for argument in node.args if isinstance(argument, ast.Constant)]


def missing(catalogue: Path) -> list[list[str]]:
    """Return the texts that a catalogue lacks, as its own lines spell them."""
    there = catalogue.read_text()
    wanted = {
        "_": 'msgid "{0}"\nmsgstr "{empty}',
        "pgettext": 'msgctxt "{0}"\nmsgid "{1}"\nmsgstr "{empty}',
        "npgettext": 'msgctxt "{0}"\nmsgid "{1}"\nmsgid_plural "{2}"\nmsgstr[0] "{empty}',
    }
    return [
        texts
        for name, texts in calls()
        if (entry := wanted[name].format(*texts, empty="")) not in there or f'{entry}"' in there
    ]


def test_the_texts_are_found_in_the_sources() -> None:
    found = [texts for _, texts in calls()]
    assert ["livefeed", "Live"] in found
    assert ["livefeed", "# new item", "# new items"] in found
    assert ["topic"] in found


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_catalogue_translates_every_text(language: str) -> None:
    assert missing(LOCALE / language / "LC_MESSAGES" / "django.po") == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_whatever_stands_for_a_number_is_in_the_translation_too(language: str) -> None:
    with translation.override(language.replace("_", "-").lower()):
        translated = feed_texts()
    with translation.override("en"):
        english = feed_texts()
    states = [name for name in english if not name.startswith("new-")]
    assert [name for name in states if ("#" in english[name]) != ("#" in translated[name])] == []
    assert [name for name in english if name != "open" and english[name] == translated.get(name)] == []


@pytest.mark.parametrize(
    ("language", "forms"),
    [
        ("en", {"one": "# new item", "other": "# new items"}),
        ("de", {"one": "# neuer Eintrag", "other": "# neue Einträge"}),
        ("es", {"one": "# elemento nuevo", "other": "# elementos nuevos"}),
        ("fr", {"one": "# nouvel élément", "other": "# nouveaux éléments"}),
        ("zh-hans", {"one": "# 条新内容", "other": "# 条新内容"}),
        (
            "ar",
            {
                "zero": "لا عناصر جديدة",
                "one": "عنصر جديد واحد",
                "two": "عنصران جديدان",
                "few": "# عناصر جديدة",
                "many": "# عنصرًا جديدًا",
                "other": "# عنصر جديد",
            },
        ),
        ("ru", {"one": "# new item", "few": "# new items", "many": "# new items", "other": "# new items"}),
    ],
)
def test_there_is_a_text_for_each_plural_of_the_language(language: str, forms: dict[str, str]) -> None:
    with translation.override(language):
        assert new_items() == forms


@pytest.mark.django_db
def test_the_tag_renders_in_the_language_at_hand() -> None:
    with translation.override("de"):
        request = RequestFactory().get("/")
        html = Template('{% load livefeed %}{% livefeed "news.article" %}').render(Context({"request": request}))
    assert 'data-text-connecting="Verbinde …"' in html
    assert 'data-text-new-other="# neue Einträge"' in html


@pytest.mark.skipif(find("msgfmt") is None, reason="msgfmt (gettext) is not installed")
@pytest.mark.parametrize("language", LANGUAGES)
def test_compiled_catalogues_are_up_to_date(language: str, tmp_path: Path) -> None:
    folder = LOCALE / language / "LC_MESSAGES"
    made = tmp_path / "django.mo"
    subprocess.run([str(find("msgfmt")), "--check", "-o", str(made), str(folder / "django.po")], check=True)
    assert made.read_bytes() == (folder / "django.mo").read_bytes()
