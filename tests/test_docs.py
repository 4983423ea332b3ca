"""The documentation's Python blocks run, in the order of their page; what it quotes and lists is what there is."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType

import pytest
from django.apps import apps
from django.template import Context, Template
from django.test import RequestFactory, override_settings

from livefeed import LiveFeed
from livefeed.conf import Settings
from livefeed.registry import registry

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
RECIPES = sorted((ROOT / "docs" / "recipes").glob("*.md"))  # their blocks run in tests/e2e/test_recipes.py
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """Return mark and text of a page's blocks in one language."""
    found = BLOCK.finditer(page.read_text())
    return [(block["mark"] or "", block["text"]) for block in found if block["language"] == language]


@pytest.fixture
def feeds_as_before():
    before = set(registry)
    yield
    for feed in set(registry) - before:
        registry.remove(type(feed))


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("feeds_as_before")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page: Path, django_user_model, monkeypatch) -> None:
    namespace = ModuleType("documentation")
    namespace.user = django_user_model.objects.create(username="anna")
    for mark, text in blocks(page, "python"):
        if mark.startswith("shown: "):
            assert text.strip() in (ROOT / mark.removeprefix("shown: ")).read_text()
        elif mark == "settings":
            names: dict[str, object] = {}
            exec(compile(text, page.name, "exec"), names)
            with override_settings(**{name: value for name, value in names.items() if name.isupper()}):
                pass
        else:
            exec(compile(text, page.name, "exec"), vars(namespace))
    apps.all_models["news"].pop("price", None)
    for name, value in list(vars(namespace).items()):
        if inspect.isclass(value) and issubclass(value, LiveFeed) and value is not LiveFeed:
            assert value().field_names, name


@pytest.mark.django_db(transaction=True)
def test_template_blocks_of_the_widget_s_page_render(django_user_model) -> None:
    request = RequestFactory().get("/")
    request.user = django_user_model.objects.create(username="anna")
    article = apps.get_model("news", "Article").objects.create(title="<Hello>")
    found = {mark: [] for mark, _ in blocks(ROOT / "docs" / "widget.md", "django")}
    context = {"request": request, "article": article, "cursor": "abcd", "percent": 70, "key": 5, "order": "[5]"}
    context["item"] = {"title": "<b>", "url": "/5/", "time": "2026-01-01"}
    for mark, text in blocks(ROOT / "docs" / "widget.md", "django"):
        found[mark].append(Template("{% load livefeed %}" + text).render(Context(context)))
    (everything, value, messages), (item,), (bound,) = found[""], found["item"], found["page: article"]
    for tag in ("live-feed", "live-value", "live-counter", "live-toasts"):
        assert f"<{tag} " in everything
    assert "<live-value " in value
    assert "<template>" in messages
    assert '<article data-key="5" data-order="[5]">' in item
    assert "&lt;b&gt;" in item
    assert f'key="{article.pk}"' in bound
    assert ">&lt;Hello&gt;</" in bound
    assert 'cursor="abcd"' in found["page: cursor"][0]


def test_every_tag_is_on_the_widget_s_page() -> None:
    text = (ROOT / "docs" / "widget.md").read_text()
    tags = import_module("livefeed.templatetags.livefeed").register.tags
    assert [name for name in tags if f"{{% {name} " not in text] == []


def test_every_custom_property_of_the_style_sheet_is_on_the_widget_s_page() -> None:
    sheet = (ROOT / "livefeed" / "static" / "livefeed" / "livefeed.css").read_text()
    text = (ROOT / "docs" / "widget.md").read_text()
    assert {name for name in re.findall(r"--livefeed-[a-z-]+", sheet) if f"{name}:" not in text} == set()


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    for setting in Settings.declared():
        assert f"| `{setting.name}` | `{setting.default!r}` |" in text
    assert len(re.findall(r"^\| `LIVEFEED_", text, re.MULTILINE)) == len(Settings.declared())


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES, *RECIPES], ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_index_of_the_recipes_names_them_all() -> None:
    named = re.findall(r"^\| \[.*\]\((.*)\)", (ROOT / "docs" / "recipes" / "README.md").read_text(), re.MULTILINE)
    assert sorted(named) == [page.name for page in RECIPES if page.name != "README.md"]


def test_the_code_that_the_guarantees_name_is_there() -> None:
    names = re.findall(r"`(livefeed(?:\.\w+)+)`", (ROOT / "docs" / "guarantees.md").read_text())
    assert len(names) > 20
    for name in names:
        resolve_name(name)


def test_the_tests_that_the_guarantees_name_are_there() -> None:
    named = re.findall(r"`(tests/[\w/]+)(\.py)?(?:::(\w+))?`", (ROOT / "docs" / "guarantees.md").read_text())
    assert len(named) > 20
    for path, suffix, test in named:
        place = ROOT / f"{path}{suffix}"
        assert place.exists(), path
        assert not test or f"def {test}(" in place.read_text(), test


def test_the_readme_s_feed_is_one_that_the_checks_accept() -> None:
    assert registry.owner("news.article") is not None


@pytest.mark.django_db(transaction=True)
async def test_the_stream_test_of_the_testing_page_passes(django_user_model) -> None:
    namespace: dict[str, object] = {}
    for _, text in blocks(ROOT / "docs" / "testing.md", "python"):
        exec(compile(text, "testing.md", "exec"), namespace)
    await namespace["test_a_reader_sees_a_new_article"](django_user_model)  # type: ignore[operator]


@pytest.mark.django_db
def test_the_test_case_of_the_testing_page_passes() -> None:
    namespace: dict[str, object] = {}
    exec(compile(blocks(ROOT / "docs" / "testing.md", "python")[0][1], "testing.md", "exec"), namespace)
    case = namespace["ArticleTests"]("test_a_new_article_is_published")  # type: ignore[operator]
    result = case.run()
    assert result.wasSuccessful(), result.errors + result.failures
