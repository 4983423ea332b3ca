"""The demo site, as `make demo` serves it: one Daphne process on SQLite and the in-memory layer, asked over HTTP."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.client import EventStream
from tests.processes import ROOT, Process, accepts, free_port, run

PUBLIC_PAGES = ["/", "/section/harbour/", "/section/town/", "/login/"]
STAFF_PAGES = ["/desk/", "/notices/", "/admin/", "/admin/blog/entry/", "/admin/blog/entry/add/"]
DRAFT = "Statement of the harbour master"


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a demo that is configured by nothing but `more`."""
    ours = {"DATABASE_URL", "REDIS_URL", "DEBUG", "SECRET_KEY", "PORT", "ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS"}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return {**kept, "DJANGO_SETTINGS_MODULE": "project.settings", **more}


def manage(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run manage.py to its end."""
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(
        command, env=environment(**variables), cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )


@dataclass(frozen=True)
class Site:
    """The demo, running."""

    url: str
    database: str

    def manage(self, *arguments: str) -> str:
        """Run manage.py on the site's database, in a process of its own; return what it wrote."""
        variables = environment(DATABASE_URL=self.database)
        return run([sys.executable, "manage.py", *arguments], env=variables).strip()

    @contextmanager
    def visitor(self, user: str = "") -> Iterator[Visitor]:
        """A browser's session, signed in as `user`."""
        with httpx.Client(base_url=self.url, trust_env=False, timeout=30) as client:
            visitor = Visitor(client)
            if user:
                assert visitor.post("/login/", username=user, password="livefeed").status_code == 302
            yield visitor


@dataclass(frozen=True)
class Visitor:
    """Somebody with cookies."""

    client: httpx.Client

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path)

    def page(self, path: str) -> str:
        """Return the text of a page that must be there."""
        response = self.get(path)
        assert response.status_code == 200, f"{path}: {response.status_code}"
        return unescape(response.text)

    def post(self, path: str, **data: str) -> httpx.Response:
        """Send a form as the page would."""
        if "csrftoken" not in self.client.cookies:
            self.get("/login/")
        token = self.client.cookies["csrftoken"]
        return self.client.post(path, data={**data, "csrfmiddlewaretoken": token})

    def write(self, title: str, *, status: str = "published", section: str = "Harbour", **more: str) -> int:
        """Write an entry with the form on the page; return its primary key."""
        home = self.page("/")
        number = re.search(rf'<option value="(\d+)"[^>]*>{section}</option>', home)
        assert number, f"no section {section} to choose on the page"
        answer = self.post("/write/", title=title, text="Text.", section=number[1], status=status, next="/", **more)
        assert answer.status_code == 302
        return self.key(title, "/desk/" if status == "draft" else "/")

    def key(self, title: str, path: str) -> int:
        """Return the primary key of the entry with this title on a page."""
        keys = re.findall(r'data-key="(\d+)"|(' + re.escape(title) + ")</a>", self.page(path))
        position = next((index for index, (_, found) in enumerate(keys) if found), None)
        assert position, f"{title!r} is not on {path}"
        return int(keys[position - 1][0])

    def events(self, topic: str, since: str = "") -> httpx.Response:
        """Ask for a page of a topic's history."""
        query = {"topic": topic, **({"since": since} if since else {})}
        return self.client.get("/livefeed/", params=query, headers={"Accept": "application/json"})

    def cursor(self, topic: str) -> str:
        cursor: str = self.events(topic).json()["cursor"]
        return cursor

    def since(self, topic: str, cursor: str) -> list[tuple[str, Any]]:
        """Return type and data of what the topic has had since the cursor."""
        return [(event["type"], event["data"]) for event in self.events(topic, cursor).json()["events"]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("demo")
    port = free_port()
    database = f"sqlite:///{directory / 'demo.sqlite3'}"
    command = [sys.executable, "manage.py", "demo", "--serve"]
    variables = environment(DATABASE_URL=database, PORT=str(port), DEBUG="1", REDIS_URL="")
    with Process("demo", command, log=directory / "log", ready=lambda: accepts(port), env=variables):
        yield Site(f"http://127.0.0.1:{port}", database)


@pytest.fixture
def anybody(site: Site) -> Iterator[Visitor]:
    with site.visitor() as visitor:
        yield visitor


@pytest.fixture
def reader(site: Site) -> Iterator[Visitor]:
    with site.visitor("reader") as visitor:
        yield visitor


@pytest.fixture
def editor(site: Site) -> Iterator[Visitor]:
    with site.visitor("editor") as visitor:
        yield visitor


@pytest.fixture
def editors_notices(editor: Visitor) -> str:
    """The editor's own topic."""
    found = re.search(r'topic="(notice:\d+)', editor.page("/"))
    assert found, "no notices on the editor's page"
    return found[1]


# The commands


def test_the_checks_find_nothing() -> None:
    done = manage("check", "--fail-level", "WARNING")
    assert done.returncode == 0, done.stderr


def test_the_migrations_are_complete() -> None:
    done = manage("makemigrations", "--check", "--dry-run")
    assert done.returncode == 0, done.stdout


def test_preparing_the_demo_again_changes_nothing_and_says_the_address_and_the_logins(
    site: Site, editor: Visitor
) -> None:
    def count() -> str:
        code = "from project.blog.models import *; print(Section.objects.count(), Entry.objects.count())"
        return site.manage("shell", "--verbosity", "0", "-c", code)

    before = count()
    said = site.manage("demo", "--port", "8123")
    assert count() == before
    assert "http://127.0.0.1:8123/" in said
    assert "editor / livefeed" in said


def test_the_demo_says_that_its_port_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = manage("demo", "--serve", PORT=port, DATABASE_URL=f"sqlite:///{tmp_path / 'db.sqlite3'}")
    assert done.returncode == 1
    assert f"Port {port} on 127.0.0.1 is taken. Choose another one, such as PORT=" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("port", ["80a", "0", "65536", "-1"])
def test_the_demo_refuses_what_is_not_a_port(port: str) -> None:
    done = manage("demo", PORT=port)
    assert done.returncode == 1
    assert f"{port!r} is not a port." in done.stderr


def test_the_demo_makes_no_known_password_where_debug_is_off(tmp_path: Path) -> None:
    database = tmp_path / "db.sqlite3"
    done = manage("demo", DEBUG="0", SECRET_KEY="x" * 50, DATABASE_URL=f"sqlite:///{database}")
    assert done.returncode == 1
    assert "DEBUG is off" in done.stderr
    assert not database.exists()


def test_without_debug_a_secret_key_is_required() -> None:
    done = manage("check", DEBUG="0")
    assert "SECRET_KEY is not set" in done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "module", "package"),
    [
        ("DATABASE_URL", "postgres://localhost/demo", "dj_database_url", "dj-database-url"),
        ("REDIS_URL", "redis://localhost", "channels_redis", "channels-redis"),
    ],
)
def test_a_package_that_a_variable_needs_is_named_where_it_is_missing(
    variable: str, value: str, module: str, package: str
) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; import project.settings"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(**{variable: value}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{variable} is set, which needs the package {package}. Run: pip install {package}" in done.stderr


def test_blog_post_names_the_sections_that_there_are(site: Site) -> None:
    with pytest.raises(RuntimeError, match=r"There is: weather, harbour, town, festival\."):
        site.manage("blog_post", "--title", "A goal", "--section", "sport")


def test_chatter_writes_as_many_entries_as_asked_for(site: Site) -> None:
    said = site.manage("chatter", "--count", "7", "--seconds", "0")
    assert said.splitlines()[-1].startswith("7/7: ")


# The pages


@pytest.mark.parametrize("path", PUBLIC_PAGES)
def test_a_public_page_is_there_for_everybody(anybody: Visitor, path: str) -> None:
    assert "Saltmere" in anybody.page(path)


@pytest.mark.parametrize("path", [*PUBLIC_PAGES[:-1], *STAFF_PAGES])
def test_a_page_is_there_for_an_editor(editor: Visitor, path: str) -> None:
    assert editor.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/", "/section/harbour/", "/login/", "/desk/", "/notices/", "/write/"])
def test_a_page_loads_nothing_but_files_of_this_site(editor: Visitor, path: str) -> None:
    response = editor.post(path) if path == "/write/" else editor.get(path)
    assert response.headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert not re.search(r"<style|<script(?![^>]* src=)|\sstyle=|\son\w+=|(?:src|href)=\"(?:https?:)?//", response.text)


def test_the_files_that_the_pages_ask_for_are_served(anybody: Visitor) -> None:
    files = re.findall(r'(?:href|src)="(/static/[^"]+)"', anybody.page("/"))
    assert {Path(file).name for file in files} >= {"blog.css", "blog.js", "livefeed.js", "livefeed.css"}
    assert {anybody.get(file).status_code for file in files} == {200}


def test_the_items_are_in_the_page_for_readers_without_javascript(anybody: Visitor) -> None:
    home = anybody.page("/")
    assert "Stay away from the promenade" in home
    assert re.search(r"<time [^>]*>\d+ \w+\.? \d{4}, \d\d:\d\d</time>", home), "no readable time"
    assert re.search(r'data-key="\d+"[^>]* data-pinned="true"', home), "nothing is pinned"


def test_an_entry_has_a_page_of_its_own(editor: Visitor, anybody: Visitor) -> None:
    pk = editor.write("A page of its own")
    page = anybody.page(f"/entry/{pk}/")
    assert "A page of its own" in page
    assert "Stay away from the promenade" not in page


def test_the_page_of_a_section_shows_only_its_entries(editor: Visitor, anybody: Visitor) -> None:
    editor.write("Seen from the pier", section="Harbour")
    assert "Seen from the pier" in anybody.page("/section/harbour/")
    assert "Seen from the pier" not in anybody.page("/section/town/")


# Who sees what


@pytest.mark.parametrize("path", ["/", "/section/harbour/"])
def test_drafts_are_on_no_public_page_not_even_for_editors(
    anybody: Visitor, reader: Visitor, editor: Visitor, path: str
) -> None:
    for visitor in (anybody, reader, editor):
        assert DRAFT not in visitor.page(path)


def test_the_page_of_a_draft_is_not_there(editor: Visitor, anybody: Visitor) -> None:
    pk = editor.write("Not yet", status="draft")
    assert anybody.get(f"/entry/{pk}/").status_code == 404


def test_the_desk_is_for_the_staff(anybody: Visitor, reader: Visitor, editor: Visitor) -> None:
    assert anybody.get("/desk/").headers["Location"] == "/login/?next=/desk/"
    refused = reader.get("/desk/")
    assert refused.status_code == 403
    assert DRAFT not in refused.text
    assert DRAFT in editor.page("/desk/")


@pytest.mark.parametrize("path", ["/write/", "/entry/1/edit/", "/entry/1/delete/"])
def test_readers_may_not_write(anybody: Visitor, reader: Visitor, path: str) -> None:
    assert anybody.post(path).headers["Location"].startswith("/login/")
    assert reader.post(path).status_code == 403


def test_the_desks_topic_is_refused_to_readers(anybody: Visitor, reader: Visitor, editor: Visitor) -> None:
    assert anybody.events("blog.desk").status_code == 404
    assert reader.events("blog.desk").status_code == 404
    assert editor.events("blog.desk").status_code == 200


def test_notices_are_refused_to_everybody_but_their_recipient(
    anybody: Visitor, reader: Visitor, editor: Visitor, editors_notices: str
) -> None:
    assert anybody.events(editors_notices).status_code == 404
    assert reader.events(editors_notices).status_code == 404
    assert editor.events(editors_notices).status_code == 200


def test_a_signed_name_is_of_no_use_to_another(reader: Visitor, editor: Visitor, anybody: Visitor) -> None:
    page = editor.page("/desk/")
    for name in ("blog.desk", "notice:"):
        signed = re.search(rf'topic="({re.escape(name)}[^"]*~[^"]*)"', page)
        assert signed, f"no signed name of {name} on the desk"
        assert editor.events(signed[1]).status_code == 200
        assert reader.events(signed[1]).status_code == 404
        assert anybody.events(signed[1]).status_code in {401, 404}


def test_a_snapshot_of_a_topic_that_is_malformed_or_unknown_is_no_error(anybody: Visitor) -> None:
    for topic in ("blog.entry:id:x", "blog.entry:id:99999999999999999999", "blog.entry:nowhere", "blog.entry:a:b:c"):
        answer = anybody.client.get("/livefeed/", params={"topic": topic}, headers={"Accept": "text/html"})
        assert answer.status_code == 200, f"{topic}: {answer.status_code}"
        assert "data-key" not in answer.text


# What happens on the page


def test_publishing_a_draft_shows_it_to_readers_and_withdrawing_it_takes_it_away(
    editor: Visitor, anybody: Visitor
) -> None:
    pk = editor.write("From desk to page", status="draft")
    form = {"title": "From desk to page", "text": "Text.", "section": section_of(editor, pk)}
    public, desk = anybody.cursor("blog.entry"), editor.cursor("blog.desk")

    editor.post(f"/entry/{pk}/edit/", **form, status="published")
    assert [(type, data["pk"]) for type, data in anybody.since("blog.entry", public)] == [("created", pk)]
    assert editor.since("blog.desk", desk) == [("deleted", {"pk": pk})]
    assert "From desk to page" in anybody.page("/")

    public, desk = anybody.cursor("blog.entry"), editor.cursor("blog.desk")
    editor.post(f"/entry/{pk}/edit/", **form, status="draft")
    assert anybody.since("blog.entry", public) == [("deleted", {"pk": pk})]
    assert [(type, data["pk"]) for type, data in editor.since("blog.desk", desk)] == [("created", pk)]
    assert "From desk to page" not in anybody.page("/")


def test_what_is_published_last_is_on_top_also_if_it_was_a_draft_for_long(editor: Visitor, anybody: Visitor) -> None:
    pk = editor.write("Began first", status="draft")
    editor.write("Began second")
    editor.post(
        f"/entry/{pk}/edit/", title="Began first", text="Text.", section=section_of(editor, pk), status="published"
    )
    home = anybody.page("/section/harbour/")
    assert home.index("Began first") < home.index("Began second")


def test_an_entry_that_changes_its_section_changes_pages(editor: Visitor, anybody: Visitor) -> None:
    pk = editor.write("Sent to the wrong desk", section="Town")
    town, harbour = anybody.cursor("blog.entry:town"), anybody.cursor("blog.entry:harbour")
    everything = anybody.cursor("blog.entry")
    section = re.search(r'<option value="(\d+)"[^>]*>Harbour</option>', editor.page("/"))
    assert section
    editor.post(f"/entry/{pk}/edit/", title="In the right one", text="Text.", section=section[1], status="published")
    assert anybody.since("blog.entry:town", town) == [("deleted", {"pk": pk})]
    assert [type for type, _ in anybody.since("blog.entry:harbour", harbour)] == ["created"]
    assert [type for type, _ in anybody.since("blog.entry", everything)] == ["updated"]


def test_deleting_an_entry_takes_it_from_every_page(editor: Visitor, anybody: Visitor) -> None:
    pk = editor.write("Soon gone")
    topics = ["blog.entry", "blog.entry:harbour", f"blog.entry:id:{pk}"]
    cursors = {topic: anybody.cursor(topic) for topic in topics}
    editor.post(f"/entry/{pk}/delete/")
    assert [anybody.since(topic, cursor) for topic, cursor in cursors.items()] == [[("deleted", {"pk": pk})]] * 3


def test_an_entry_saved_in_the_admin_is_published(editor: Visitor, anybody: Visitor) -> None:
    cursor = anybody.cursor("blog.entry")
    form = editor.page("/admin/blog/entry/add/")
    author = re.search(r'<option value="(\d+)" selected>editor</option>', form)
    section = re.search(r'<option value="(\d+)">Weather</option>', form)
    assert author
    assert section
    answer = editor.post(
        "/admin/blog/entry/add/",
        title="From the admin",
        text="Text.",
        section=section[1],
        author=author[1],
        status="published",
    )
    assert answer.status_code == 302
    assert [(type, data["title"]) for type, data in anybody.since("blog.entry", cursor)] == [
        ("created", "From the admin")
    ]


def test_withdrawing_in_the_admin_reaches_the_pages(editor: Visitor, anybody: Visitor) -> None:
    pks = [editor.write("One of two"), editor.write("The other")]
    cursor = anybody.cursor("blog.entry")
    answer = editor.client.post(
        "/admin/blog/entry/",
        data={
            "action": "withdraw_entries",
            "_selected_action": [str(pk) for pk in pks],
            "csrfmiddlewaretoken": editor.client.cookies["csrftoken"],
        },
    )
    assert answer.status_code == 302
    assert anybody.since("blog.entry", cursor) == [("deleted", {"pk": pk}) for pk in pks]


def test_applause_counts_and_tells_the_author_once(
    editor: Visitor, anybody: Visitor, reader: Visitor, editors_notices: str
) -> None:
    pk = editor.write("A fine sentence")
    public, personal = anybody.cursor("blog.entry"), editor.cursor(editors_notices)

    for visitor in (anybody, anybody, reader, editor):
        assert visitor.post("/applaud/", entry=str(pk), next="/").status_code == 302

    assert [data["applause"] for _, data in anybody.since("blog.entry", public)] == [1, 2, 3, 4]
    assert [(type, data["text"]) for type, data in editor.since(editors_notices, personal)] == [
        ("created", "A reader applauded “A fine sentence”"),
        ("created", "reader applauded “A fine sentence”"),
    ]
    assert "reader applauded “A fine sentence”" in editor.page("/notices/")
    assert "reader applauded" not in reader.page("/notices/")


def test_a_reading_of_the_gauge_is_the_new_value_on_every_page(editor: Visitor, anybody: Visitor) -> None:
    assert editor.post("/report/", cm="402", next="/desk/").headers["Location"] == "/desk/"
    home = anybody.page("/")
    value = re.search(r'<live-value [^>]* value="({[^}]*})"', home)
    assert value, "no value on the page"
    assert json.loads(value[1])["cm"] == 402
    assert re.search(r'<span data-field="cm">402</span>', home), "nothing to read without JavaScript"

    cursor = anybody.cursor("blog.reading")
    editor.post("/report/", cm="410", next="/desk/")
    assert [(type, data["cm"]) for type, data in anybody.since("blog.reading", cursor)] == [("created", 410)]


def test_a_reading_that_can_t_be_is_refused(editor: Visitor, reader: Visitor, anybody: Visitor) -> None:
    before = anybody.cursor("blog.reading")
    for cm in ("", "-1", "601", "high"):
        answer = editor.post("/report/", cm=cm)
        assert (answer.status_code, 'class="errorlist"' in answer.text) == (422, True), cm
    assert reader.post("/report/", cm="300").status_code == 403
    assert anybody.since("blog.reading", before) == []


def test_the_entries_are_counted(editor: Visitor, anybody: Visitor) -> None:
    def counted() -> int:
        found = re.search(r'<live-counter [^>]* value="(\d+)"[^>]*>(\d+)<', anybody.page("/section/festival/"))
        assert found, "no counter on the page"
        assert found[1] == found[2]
        return int(found[1])

    before = counted()
    editor.write("One more", section="Festival")
    assert counted() == before + 1


def test_everybody_is_told_of_what_is_kept_at_the_top_once(editor: Visitor, anybody: Visitor) -> None:
    assert re.search(r'<live-toasts [^>]*topic="blog\.alert~', anybody.page("/section/town/"))
    cursor = anybody.cursor("blog.alert")
    pk = editor.write("Get indoors", pinned="on")
    editor.write("A dog has been found")
    told = ("alert", {"text": "Get indoors", "url": f"/entry/{pk}/"})
    assert anybody.since("blog.alert", cursor) == [told]

    form = {"title": "Get indoors", "text": "Now.", "section": section_of(editor, pk), "status": "published"}
    editor.post(f"/entry/{pk}/edit/", **form, pinned="on")
    assert anybody.since("blog.alert", cursor) == [told]
    editor.post(f"/entry/{pk}/edit/", **form)
    editor.post(f"/entry/{pk}/edit/", **form, pinned="on")
    assert anybody.since("blog.alert", cursor) == [told, told]
    editor.post(f"/entry/{pk}/edit/", **form)


def test_clearing_the_notices_takes_them_from_every_page(
    editor: Visitor, anybody: Visitor, editors_notices: str
) -> None:
    pk = editor.write("Cleared in a moment")
    anybody.post("/applaud/", entry=str(pk))
    cursor = editor.cursor(editors_notices)
    editor.post("/notices/", next="/")
    assert {type for type, _ in editor.since(editors_notices, cursor)} == {"deleted"}
    assert "A reader applauded" not in editor.page("/notices/")


@pytest.mark.parametrize("entry", ["", "x", "99999999", "99999999999999999999999"])
def test_applause_for_what_is_not_there_is_not_found(anybody: Visitor, entry: str) -> None:
    assert anybody.post("/applaud/", entry=entry).status_code == 404


def test_a_draft_cannot_be_applauded(editor: Visitor, anybody: Visitor) -> None:
    pk = editor.write("Nobody has read this", status="draft")
    assert anybody.post("/applaud/", entry=str(pk)).status_code == 404


def test_a_form_that_is_not_complete_comes_back_with_what_was_written(editor: Visitor) -> None:
    answer = editor.post("/write/", title="Half of it", text="", status="published", next="/section/town/")
    assert answer.status_code == 422
    assert 'value="Half of it"' in answer.text
    assert "This field is required." in answer.text
    assert 'name="next" value="/section/town/"' in answer.text


@pytest.mark.parametrize("target", ["https://elsewhere.example/", "//elsewhere.example", "javascript:alert(1)", ""])
def test_a_form_leads_back_to_this_site_only(editor: Visitor, target: str) -> None:
    pk = editor.write("Leads nowhere")
    assert editor.post("/applaud/", entry=str(pk), next=target).headers["Location"] == "/"


async def test_an_entry_written_by_another_process_reaches_an_open_stream_at_once(site: Site) -> None:
    async with EventStream(site.url, ["blog.entry:weather"]) as stream:
        await stream.opened()
        pk = site.manage("blog_post", "--title", "From the shell", "--section", "weather")
        await stream.until(lambda: stream.events, what="the entry of another process has come")
        draft = site.manage("blog_post", "--title", "Not for you", "--section", "weather", "--draft")
        last = site.manage("blog_post", "--title", "The last one", "--section", "weather")
        await stream.until(lambda: len(stream.events) >= 2, what="the last entry has come")
    assert [(event.type, event.data["pk"], event.data["title"]) for event in stream.events] == [
        ("created", int(pk), "From the shell"),
        ("created", int(last), "The last one"),
    ]
    assert draft not in {str(event.data["pk"]) for event in stream.events}


def section_of(editor: Visitor, pk: int) -> str:
    """Return the section that the form to edit an entry has chosen."""
    found = re.search(r'<option value="(\d+)" selected>', editor.page(f"/entry/{pk}/edit/"))
    assert found, "no section is chosen"
    return found[1]
