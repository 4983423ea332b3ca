"""The widget speaks the page's language, and the compiled catalogues are those of the sources."""

import subprocess
from pathlib import Path

import pytest
from django.template import Context, Template
from django.test import RequestFactory
from django.utils import translation

import livefeed
from tests.services import find

LOCALE = Path(livefeed.__file__).parent / "locale"
LANGUAGES = sorted(path.name for path in LOCALE.iterdir())


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_catalogue_translates_every_text_of_the_widget(language: str) -> None:
    texts = ["Connecting…", "Live", "Connection lost. Reconnecting…", "Live updates stopped. Reload the page."]
    with translation.override(language.replace("_", "-").lower()):
        assert [text for text in texts if translation.gettext(text) == text and text != "Live"] == []


@pytest.mark.django_db
def test_the_tag_renders_in_the_language_at_hand() -> None:
    with translation.override("de"):
        request = RequestFactory().get("/")
        html = Template('{% load livefeed %}{% livefeed "news.article" %}').render(Context({"request": request}))
    assert 'data-text-connecting="Verbinde …"' in html


@pytest.mark.skipif(find("msgfmt") is None, reason="msgfmt (gettext) is not installed")
@pytest.mark.parametrize("language", LANGUAGES)
def test_compiled_catalogues_are_up_to_date(language: str, tmp_path: Path) -> None:
    folder = LOCALE / language / "LC_MESSAGES"
    made = tmp_path / "django.mo"
    subprocess.run([str(find("msgfmt")), "-o", str(made), str(folder / "django.po")], check=True)
    assert made.read_bytes() == (folder / "django.mo").read_bytes()
