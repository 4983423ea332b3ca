"""The table of rights: who, which topic under which rule, at which moment, and what has to happen. On real servers.

What stands in the tables was written by hand, from docs/access.md, docs/security.md and docs/wire.md; nothing of it is
worked out by the code under test. The site is tests/rights_site; two servers share it, and what happens happens in a
third process, or in one of the two.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx
import pytest

from tests.e2e.client import EventStream, Parser, new_client
from tests.e2e.servers import Server
from tests.rights_site.stage import Stage

pytestmark = pytest.mark.needs("redis")

ALLOWED_ORIGIN = "https://app.example.com"
ARTICLE, JOB = "rights_site.article", "job:1"
#: Seconds for what comes at once on a machine that has nothing else to do.
LIMIT = 60.0
TOGETHER = 12

# -- who reads what ---------------------------------------------------------------------------------------------------

#: The columns, and what opens each: {me} and {another} are keys of users; those of the job have names of their own for
#: each who asks, see tests/rights_site/cast.py.
COLUMNS = {
    "story": "story",  # public = True
    "story:1": "story:1",  # the same by a key
    "article": ARTICLE,  # Django's view permission
    "mine": "mine:{me}",  # has_view_permission(), with the user in the key
    "theirs": "mine:{another}",
    "staff": "staff",  # async has_view_permission()
    "broken": "broken",  # has_view_permission() that raises
    "club": "club:inner",  # get_view_permissions(): the members of a group
    "ledger": "ledger",  # get_data_for(): staff sees another field, and events that others do not
    "quiet": "quiet",  # neither a model nor a rule
    "absent": "absent",  # nobody ever published there, and no feed owns it
    "job": JOB,  # no feed owns it
    "signed": "",  # the same, signed for who asks
    "another's": "",  # for another user
    "session's": "",  # for another session
    "old": "",  # for who asks, a minute longer ago than LIVEFEED_SIGNATURE_SECONDS
    "spoiled": "",  # for who asks, and changed
    "nobody's": "",  # for somebody who is nobody, without a session
}
#: Topics with items that a snapshot shows; of the others there is none.
WITH_ITEMS = {"story", "story:1", "article", "ledger"}
#: Topics that are asked for together: one name for each topic.
MIXED = [
    "theirs",
    "story",
    "article",
    "absent",
    "mine",
    "staff",
    "broken",
    "story:1",
    "club",
    "ledger",
    "quiet",
    "signed",
]

#: R: reads. S: reads, as staff does. -: 404, as if it were not there. A: 401, credentials that don't hold or that
#: nobody understood. X: 403, a page of another origin.
TABLE = """
                                   story story:1 article mine theirs staff broken club ledger quiet absent job signed another's session's old spoiled nobody's
nobody                               R      R       -     -     -      -     -     -     -      -     -     -    R        -         -      -     -       R
session of nobody's                  R      R       -     -     -      -     -     -     -      -     -     -    R        -         -      -     -       -
made-up session                      R      R       -     -     -      -     -     -     -      -     -     -    -        -         -      -     -       R
signed in                            R      R       -     R     -      -     -     -     R      -     -     -    R        -         -      -     -       -
with permission                      R      R       R     R     -      -     -     -     R      -     -     -    R        -         -      -     -       -
by group                             R      R       R     R     -      -     -     R     R      -     -     -    R        -         -      -     -       -
staff                                R      R       -     R     -      R     -     -     S      -     -     -    R        -         -      -     -       -
superuser                            R      R       R     R     -      -     -     -     R      -     -     -    R        -         -      -     -       -
inactive                             R      R       -     -     -      -     -     -     -      -     -     -    -        -         -      -     -       -
deleted                              R      R       -     -     -      -     -     -     -      -     -     -    -        -         -      -     -       -
session of an old password           R      R       -     -     -      -     -     -     -      -     -     -    -        -         -      -     -       R
expired session                      R      R       -     -     -      -     -     -     -      -     -     -    -        -         -      -     -       R
token                                R      R       R     R     -      -     -     -     R      -     -     -    R        -         -      -     -       -
token for these                      -      -       R     -     -      -     -     -     -      -     -     R    R        R         R      R     R       R
token for these, no permission       -      -       -     -     -      -     -     -     -      -     -     R    R        R         R      R     R       R
token for others                     -      -       -     -     -      -     -     -     -      -     -     -    -        -         -      -     -       -
token for nobody                     R      -       -     -     -      -     -     -     -      -     -     R    R        R         R      R     R       R
expired token                        A      A       A     A     A      A     A     A     A      A     A     A    A        A         A      A     A       A
spoiled token                        A      A       A     A     A      A     A     A     A      A     A     A    A        A         A      A     A       A
token of an old password             A      A       A     A     A      A     A     A     A      A     A     A    A        A         A      A     A       A
token of an inactive user            A      A       A     A     A      A     A     A     A      A     A     A    A        A         A      A     A       A
token of a deleted user              A      A       A     A     A      A     A     A     A      A     A     A    A        A         A      A     A       A
token beside a superuser's cookie    -      -       -     -     -      -     -     -     -      -     -     -    -        -         -      -     -       -
foreign bearer                       R      R       A     A     A      A     A     A     A      A     A     A    R        A         A      A     A       R
foreign bearer and session           R      R       R     R     -      -     -     -     R      -     -     -    R        -         -      -     -       -
staging proxy                        R      R       A     A     A      A     A     A     A      A     A     A    R        A         A      A     A       R
staging proxy and session            R      R       R     R     -      -     -     -     R      -     -     -    R        -         -      -     -       -
rest token                           R      R       R     R     -      -     -     -     R      -     -     -    R        -         -      -     -       -
deleted rest token                   A      A       A     A     A      A     A     A     A      A     A     A    A        A         A      A     A       A
rest token of an inactive user       A      A       A     A     A      A     A     A     A      A     A     A    A        A         A      A     A       A
rest session                         R      R       R     R     -      -     -     -     R      -     -     -    R        -         -      -     -       -
key                                  R      R       R     R     -      -     -     -     R      -     -     -    R        -         -      -     -       -
unknown key                          A      A       A     A     A      A     A     A     A      A     A     A    A        A         A      A     A       A
key that meets a bug                 A      A       A     A     A      A     A     A     A      A     A     A    A        A         A      A     A       A
own page                             R      R       R     R     -      -     -     -     R      -     -     -    R        -         -      -     -       -
address bar                          R      R       R     R     -      -     -     -     R      -     -     -    R        -         -      -     -       -
cross-site page                      X      X       X     X     X      X     X     X     X      X     X     X    X        X         X      X     X       X
cross-site image                     X      X       X     X     X      X     X     X     X      X     X     X    X        X         X      X     X       X
same-site page                       X      X       X     X     X      X     X     X     X      X     X     X    X        X         X      X     X       X
foreign origin over http             X      X       X     X     X      X     X     X     X      X     X     X    X        X         X      X     X       X
origin null                          X      X       X     X     X      X     X     X     X      X     X     X    X        X         X      X     X       X
allowed origin's prefix              X      X       X     X     X      X     X     X     X      X     X     X    X        X         X      X     X       X
allowed origin                       R      R       R     R     -      -     -     -     R      -     -     -    R        -         -      -     -       -
allowed origin, nobody               R      R       -     -     -      -     -     -     -      -     -     -    R        -         -      -     -       R
"""  # noqa: E501

STATUS = {"R": 200, "S": 200, "-": 404, "A": 401, "X": 403}
CHALLENGES = {
    "unknown key": 'Api-Key realm="rights"',
    "deleted rest token": "Token",
    "rest token of an inactive user": "Token",
    "foreign bearer": "Bearer",
    "staging proxy": "Bearer",
}
#: Under a name that breaks the rule for names, or 51 of them, nobody has a right, and nobody is asked who they are.
NO_REQUEST = {"malformed": ["no spaces"], "51 topics": ["story"] * 51, "no topic": []}


def rows() -> dict[str, dict[str, str]]:
    """Return the table: what happens, by who asks and by column."""
    head, *lines = TABLE.strip("\n").splitlines()
    columns = head.split()
    assert columns == list(COLUMNS)
    found = {}
    for line in lines:
        who, cells = line[: head.index("story")].strip(), line[head.index("story") :].split()
        assert len(cells) == len(columns), who
        found[who] = dict(zip(columns, cells, strict=True))
    return found


ROWS = rows()

# -- the site ---------------------------------------------------------------------------------------------------------


@dataclass
class Site:
    """The two servers, the process in which things happen, and who asks."""

    servers: list[Server]
    stage: Stage
    people: dict[str, Any]
    another: int
    before: dict[str, str]
    words: list[str] = field(default_factory=list)
    after: dict[str, str] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)

    def speak(self, word: str) -> None:
        """Let something happen on each topic, in the third process."""
        self.after = self.stage.call("speak", word)
        self.words.append(word)

    def topic(self, who: str, column: str) -> str:
        """Return the topic of a column by its own name."""
        me = self.people[who]["user"] or self.another
        return COLUMNS[column].format(me=me, another=self.another) or JOB

    def name(self, who: str, column: str) -> str:
        """Return the name by which somebody asks for it."""
        name: str = COLUMNS[column] and self.topic(who, column)
        return name or self.people[who]["names"][column]

    def events(self, who: str, column: str, cell: str, words: list[str]) -> list[dict[str, Any]]:
        """Return the data that somebody is shown who reads a topic."""
        topic = self.topic(who, column)
        if column in {"story", "story:1", "article"}:
            return [{"pk": 1, "title": f"{column.partition(':')[0]} {word}"} for word in words]
        if column != "ledger":
            return [{"title": f"{topic} {word}"} for word in words]
        if cell == "R":
            return [{"pk": 1, "title": f"ledger {word}"} for word in words]
        open_ones = [{"pk": 1, "title": f"ledger {word}", "margin": "in pencil", "hidden": False} for word in words]
        hidden = [{"pk": 2, "title": f"ledger hidden {word}", "margin": "in pencil", "hidden": True} for word in words]
        return [entry for pair in zip(open_ones, hidden, strict=True) for entry in pair]


@pytest.fixture(scope="module")
def site(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("rights")
    env = {
        "DJANGO_SETTINGS_MODULE": "tests.rights_site.settings",
        "DATABASE_URL": f"sqlite:///{directory / 'site.sqlite3'}",
        "REDIS_URL": redis_url,
    }
    # What a server writes of each request's URL is the server's, and the site's to turn off.
    options = {"uvicorn": ["--no-access-log"], "daphne": ["--access-log", str(directory / "access.log")]}
    with ExitStack() as stack:
        stage = stack.enter_context(Stage(env, directory / "stage.log"))
        cast = stage.call("prepare")
        servers = [
            Server(kind, directory, env=env, application="tests.rights_site.asgi:application", options=options[kind])
            for kind in ("uvicorn", "daphne")
        ]
        for server in servers:
            stack.enter_context(server)
        site = Site(servers, stage, cast["people"], cast["another"], stage.call("cursors"))
        for person in site.people.values():
            site.secrets |= secrets_of(person) | {name.rpartition("~")[2] for name in person["names"].values()}
        site.speak("first")
        site.speak("second")
        yield site
        for server in servers:
            # Rules that fail, fail on purpose.
            assert len(server.trouble()) == server.log().count("\nRuntimeError: on purpose\n"), server.trouble()


def secrets_of(person: dict[str, Any]) -> set[str]:
    """Return what somebody shows that nobody else may get to know."""
    name = person.get("name", "")
    return {secret for secret in [*person["secrets"], name.rpartition("~")[2] if "~" in name else ""] if secret}


# -- asking -----------------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What a server answered; of a stream, what came until enough was there."""

    status: int
    headers: httpx.Headers
    body: bytes
    parser: Parser
    blocks: list[Any]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def opening(self) -> Any:
        return next(block.data for block in self.blocks if block.type == "livefeed-open")

    @property
    def events(self) -> list[Any]:
        return [block.data for block in self.blocks if not block.type.startswith("livefeed-")]

    @property
    def looks(self) -> tuple[Any, ...]:
        """What can be seen from outside, but for the time."""
        return self.status, sorted(pair for pair in self.headers.multi_items() if pair[0] != "date"), self.body


STREAM, PAGE, ITEMS = "text/event-stream", "application/json", "text/html"
Enough = Callable[[Parser, list[Any]], bool]


@dataclass
class Asker:
    """Somebody, who asks servers."""

    client: httpx.AsyncClient
    server: Server
    headers: dict[str, str]
    few: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(TOGETHER))

    async def asks(
        self,
        names: list[str],
        accept: str,
        *,
        since: str = "",
        method: str = "GET",
        enough: Enough = lambda parser, blocks: bool(blocks),
    ) -> Answer:
        url = f"{self.server.url}/livefeed/"
        headers = {**self.headers, "Accept": accept} | ({"Last-Event-ID": since} if since else {})
        params = [("topic", name) for name in names]
        parser, blocks, body = Parser(), [], b""
        stream = self.client.stream(method, url, params=params, headers=headers)
        async with self.few, asyncio.timeout(LIMIT), stream as response:
            async for data in response.aiter_bytes():
                body += data
                if response.status_code == 200 and accept == STREAM:
                    blocks += parser.feed(data)
                    if enough(parser, blocks):
                        break
        return Answer(response.status_code, response.headers, body, parser, blocks)


# -- what has to happen -----------------------------------------------------------------------------------------------


def check_every(answer: Answer, status: int, who: str) -> None:
    """Check what holds for every answer."""
    assert answer.status == status, answer.body[:300]
    headers = answer.headers
    assert headers["Cache-Control"] in {"private, no-store", "private, no-store, no-transform"}
    vary = {name.strip() for name in headers["Vary"].split(",")}
    assert "Origin" in vary
    assert status in {400, 403} or "Cookie" in vary or "token" in who or "key" in who
    allowed = ALLOWED_ORIGIN if who in {"allowed origin", "allowed origin, nobody"} else None
    assert headers.get("Access-Control-Allow-Origin") == allowed
    assert headers.get("Access-Control-Allow-Credentials") == (allowed and "true")
    assert headers.get("Set-Cookie", 'sessionid="";').startswith(
        'sessionid="";'
    )  # Django's, for a session that is none
    assert ("WWW-Authenticate" in headers) == (status == 401)
    if status == 401:
        assert headers["WWW-Authenticate"] == CHALLENGES.get(who, 'Bearer error="invalid_token"')
    assert "Location" not in headers


def check_problem(answer: Answer, status: int, secrets: set[str], names: list[str]) -> None:
    """Check that an error says what it is, and neither a name nor a secret."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json
    assert (problem["type"], problem["status"]) == ("about:blank", status)
    assert set(problem) == {"type", "title", "status", "detail"}
    text = answer.body.decode()
    # Not for words of the error's own, such as "story" in "history".
    assert not any(re.search(rf"\b{re.escape(name)}", text) for name in names if len(name) > 6), text
    assert not any(secret in text for secret in secrets), text


class Cell(NamedTuple):
    """One cell of the table."""

    who: str
    column: str
    cell: str

    @property
    def reads(self) -> bool:
        return self.cell in "RS"


async def check_cell(site: Site, asker: Asker, cell: Cell) -> dict[str, Answer]:
    """Check one cell at each moment; return the answers by moment."""
    name, topic = site.name(cell.who, cell.column), site.topic(cell.who, cell.column)
    shown = site.events(cell.who, cell.column, cell.cell, site.words) if cell.reads else []
    status = STATUS[cell.cell]
    since, head = site.before.get(topic, ""), site.after.get(topic, "")

    fresh = await asker.asks([name], STREAM)
    again = await asker.asks([name], STREAM, since=since, enough=lambda parser, _: parser.last_event_id == head)
    page = await asker.asks([name], PAGE, since=since)
    items = await asker.asks([name], ITEMS)
    head_ = await asker.asks([name], STREAM, method="HEAD")
    found = {"stream": fresh, "replay": again, "page": page, "items": items, "HEAD": head_}

    has_items = cell.column in WITH_ITEMS
    for moment, answer in found.items():
        wanted = 406 if moment == "items" and cell.reads and not has_items else status
        check_every(answer, wanted, cell.who)
        if wanted != 200 and moment != "HEAD":
            check_problem(answer, wanted, site.secrets, [name, topic])
    assert head_.body == b""
    if not cell.reads:
        return found

    assert (fresh.opening["topics"], fresh.opening["refused"], fresh.opening["resumed"]) == ([topic], [], None)
    assert fresh.events == []
    assert (again.opening["topics"], again.opening["refused"], again.opening["resumed"]) == ([topic], [], True)
    assert again.events == shown
    assert (page.json["topics"], page.json["refused"], page.json["resets"]) == ([topic], [], [])
    assert [event["data"] for event in page.json["events"]] == shown
    assert not page.json["more"]
    if has_items:
        check_items(items.body.decode(), cell)
    return found


def check_items(text: str, cell: Cell) -> None:
    """Check that a snapshot shows the items, and of the ledger what somebody may see of it."""
    assert f"{cell.column.partition(':')[0]} second" in text
    assert ("ledger hidden" in text) == (cell.cell == "S")
    assert ("in pencil" in text) == (cell.cell == "S")


def check_same(answers: dict[str, Answer], absent: dict[str, Answer], column: str) -> None:
    """Check that what is not for somebody looks as what is not there."""
    for moment, answer in answers.items():
        assert answer.looks == absent[moment].looks, (column, moment)


# -- tests: who reads what --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ROWS)
async def test_who_reads_what_at_connecting_and_replay_and_in_pages_and_snapshots(who: str, site: Site) -> None:
    """Servers take turns: each column meets each of them, with one person or the next."""
    turn = list(ROWS).index(who)
    async with new_client() as client:
        few = asyncio.Semaphore(TOGETHER)
        askers = [Asker(client, server, site.people[who]["headers"], few) for server in site.servers]
        absent = [await check_cell(site, asker, Cell(who, "absent", ROWS[who]["absent"])) for asker in askers]

        async def check(number: int, column: str) -> None:
            one = (turn + number) % 2
            cell = Cell(who, column, ROWS[who][column])
            try:
                answers = await check_cell(site, askers[one], cell)
                if not cell.reads:
                    check_same(answers, absent[one], column)
            except AssertionError as error:
                error.add_note(f"{who} asks {site.servers[one].name} for {column}; the table says {cell.cell}")
                raise

        done = await asyncio.gather(*(check(*pair) for pair in enumerate(COLUMNS)), return_exceptions=True)
        errors = [error for error in done if isinstance(error, Exception)]
        if errors:
            raise ExceptionGroup(f"{len(errors)} cells of {who!r} are wrong", errors)

        for names in NO_REQUEST.values():
            for accept in (STREAM, PAGE, ITEMS):
                answer = await askers[turn % 2].asks(names, accept)
                check_every(answer, 403 if ROWS[who]["story"] == "X" else 400, who)


def mixed(who: str, site: Site) -> tuple[list[str], dict[str, str], list[str]]:
    """Return the names that somebody asks for together; the topics they are to get, with columns; and the others."""
    names = [site.name(who, column) for column in MIXED]
    opened = {site.topic(who, column): column for column in MIXED if ROWS[who][column] in "RS"}
    refused = [site.name(who, column) for column in MIXED if ROWS[who][column] not in "RS"]
    return names, opened, list(dict.fromkeys(refused))


async def test_a_mixture_of_topics_is_opened_as_far_as_each_of_them_is_and_so_is_what_happens_then(site: Site) -> None:
    """Everybody has a stream on both servers, while something happens on all topics in a third process."""
    open_to = [who for who, row in ROWS.items() if any(row[column] in "RS" for column in MIXED)]
    assert len(open_to) > 20
    before, words = dict(site.after), ["live", "once more"]

    def shown(who: str, opened: dict[str, str]) -> dict[str, list[Any]]:
        return {topic: site.events(who, column, ROWS[who][column], words) for topic, column in opened.items()}

    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(new_client())
        streams = {}
        for who in open_to:
            names, _, _ = mixed(who, site)
            for server in site.servers:
                headers = site.people[who]["headers"]
                stream = EventStream(server.url, names, headers=headers, reconnect=False, client=client)
                streams[who, server.kind] = await stack.enter_async_context(stream)
            await asyncio.gather(*(streams[who, server.kind].opened() for server in site.servers))
        for word in words:
            await asyncio.to_thread(site.speak, word)

        for (who, kind), stream in streams.items():
            names, opened, refused = mixed(who, site)
            opening = stream.own("open")[0].data
            assert (opening["topics"], opening["refused"]) == (list(opened), refused), (who, kind)
            wanted = shown(who, opened)
            await stream.until(
                lambda stream=stream, wanted=wanted: len(stream.events) >= sum(map(len, wanted.values())),
                what=f"{who} has got everything from {kind}",
            )
            assert _by_topic(stream.events, opened) == wanted, (who, kind)
            assert stream.ends == [], (who, kind)

        for number, who in enumerate(open_to):
            names, opened, refused = mixed(who, site)
            asker = Asker(client, site.servers[number % 2], site.people[who]["headers"])
            page = (await asker.asks(names, PAGE, since=".".join(before[topic] for topic in opened))).json
            assert (page["topics"], page["refused"], page["resets"]) == (list(opened), refused, []), who
            found = {topic: [event["data"] for event in page["events"] if event["topic"] == topic] for topic in opened}
            assert found == shown(who, opened), who
            assert len(page["events"]) == sum(map(len, found.values())), who


def _by_topic(blocks: list[Any], topics: dict[str, str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {topic: [] for topic in topics}
    for block in blocks:
        found.setdefault(block.topic if len(topics) > 1 else next(iter(topics)), []).append(block.data)
    return found


# -- rights that end --------------------------------------------------------------------------------------------------


class Ending(NamedTuple):
    """A right that ends while a stream is open on both servers.

    ``by`` and ``trait``: how somebody is known, and what opens the topic to them (see tests/rights_site/cast.py).
    ``code``: what happens in the third process; POST is a logout at one of the two servers. ``back``: what who comes
    back is told then. Where ``told`` is False nobody tells the servers: it is found at the next look.
    """

    what: str
    by: str
    trait: str
    topic: str
    code: str
    back: int
    told: bool = True


SAVE_INACTIVE = "user.is_active = False; user.save()"
UPDATE_INACTIVE = "User.objects.filter(pk=pk).update(is_active=False)"
NEW_PASSWORD = "user.set_password('another'); user.save()"
NEW_HASH = "User.objects.filter(pk=pk).update(password='another')"
DELETE, DELETE_RAW = "user.delete()", "User.objects.filter(pk=pk)._raw_delete('default')"
TAKE = "user.user_permissions.clear()"
LEAVE_GROUP = "user.groups.clear()"
EMPTY_DESK = "models.Desk.objects.get(pk=topic.partition(':')[2]).members.clear()"
BURN = "models.Desk.objects.filter(pk=topic.partition(':')[2]).update(name=f'burning {pk}')"
END_SESSION = "Session.objects.filter(pk=session).delete()"
OLD_SESSION = "Session.objects.filter(pk=session).update(expire_date='2001-01-01T00:00:00Z')"
LOGIN = "user.last_login = '2026-01-01T00:00Z'; user.save(update_fields=['last_login'])"
OTHER_SESSION = "Session.objects.get(pk=cast.session_of(user)).delete()"
OTHER_INACTIVE = "other = cast.new_user(); other.is_active = False; other.save()"
OTHER_DISCONNECTED = "disconnect(user=cast.new_user())"

ENDINGS = [
    # what                                 by              trait        topic      code                        back
    Ending("logout", "session", "", "mine:", "POST", 404),
    Ending("logout, of what all may read", "session", "", "story", "POST", 200),
    Ending("logout", "session", "", "job:1~", "POST", 404),
    Ending("logout", "rest session", "", "mine:", "POST", 404),
    Ending("deactivation", "session", "", "mine:", SAVE_INACTIVE, 404),
    Ending("deactivation, of what all may read", "session", "", "story", SAVE_INACTIVE, 200),
    Ending("deactivation", "session", "", "job:1~", SAVE_INACTIVE, 404),
    Ending("deactivation", "token", "", "mine:", SAVE_INACTIVE, 401),
    Ending("deactivation", "token", "", "job:1", SAVE_INACTIVE, 401),
    Ending("deactivation", "rest token", "", "mine:", SAVE_INACTIVE, 401),
    Ending("deactivation", "rest session", "", "mine:", SAVE_INACTIVE, 404),
    Ending("deactivation", "key", "", "mine:", SAVE_INACTIVE, 401),
    Ending("deactivation that says nothing", "session", "", "mine:", UPDATE_INACTIVE, 404, told=False),
    Ending("deactivation that says nothing", "token", "", "job:1", UPDATE_INACTIVE, 401, told=False),
    Ending("deactivation that says nothing", "rest token", "", "story", UPDATE_INACTIVE, 401, told=False),
    Ending("deactivation that says nothing", "key", "", "story", UPDATE_INACTIVE, 401, told=False),
    Ending("a new password", "session", "", "mine:", NEW_PASSWORD, 404),
    Ending("a new password", "token", "", "job:1", NEW_PASSWORD, 401),
    Ending("a new password", "rest session", "", "mine:", NEW_PASSWORD, 404),
    Ending("a new password that says nothing", "session", "", "mine:", NEW_HASH, 404, told=False),
    Ending("a new password that says nothing", "token", "", "story", NEW_HASH, 401, told=False),
    Ending("deletion", "session", "", "mine:", DELETE, 404),
    Ending("deletion", "token", "", "job:1", DELETE, 401),
    Ending("deletion", "rest token", "", "mine:", DELETE, 401),
    Ending("deletion", "key", "", "mine:", DELETE, 401),
    Ending("deletion that says nothing", "session", "", "mine:", DELETE_RAW, 404, told=False),
    Ending("deletion that says nothing", "token", "", "job:1", DELETE_RAW, 401, told=False),
    Ending("a permission is taken", "session", "views", ARTICLE, TAKE, 404),
    Ending("a permission is taken", "token", "views", ARTICLE, TAKE, 404),
    Ending("a permission is taken", "rest token", "views", ARTICLE, TAKE, 404),
    Ending("a permission is taken", "rest session", "views", ARTICLE, TAKE, 404),
    Ending("a permission is taken", "key", "views", ARTICLE, TAKE, 404),
    Ending("a group is left", "session", "member", ARTICLE, LEAVE_GROUP, 404),
    Ending("a group is left", "session", "member", "club:inner", LEAVE_GROUP, 404),
    Ending("a group loses its members", "session", "member", ARTICLE, "cast.inner_circle().user_set.clear()", 404),
    Ending("a group is deleted", "token", "member", "club:inner", "cast.inner_circle().delete()", 404),
    Ending("a group loses a permission", "key", "member", ARTICLE, "cast.inner_circle().permissions.clear()", 404),
    Ending("staff no more", "session", "staff", "staff", "user.is_staff = False; user.save()", 404),
    Ending("a superuser no more", "session", "superuser", ARTICLE, "user.is_superuser = False; user.save()", 404),
    Ending("a rule answers differently", "session", "", "desk:", f"{EMPTY_DESK}; recheck(user=user)", 404),
    Ending("a rule answers differently", "token", "", "desk:", f"{EMPTY_DESK}; recheck(topic=topic)", 404),
    Ending("a rule answers differently", "key", "", "desk:", f"{EMPTY_DESK}; recheck(user=pk)", 404),
    Ending("a rule answers differently", "session", "", "desk:", f"{EMPTY_DESK}; recheck(session=session)", 404),
    Ending("a rule answers differently", "session", "", "desk:", EMPTY_DESK, 404, told=False),
    Ending("a rule breaks", "session", "", "desk:", BURN, 404, told=False),
    Ending("the session is ended elsewhere", "session", "", "mine:", END_SESSION, 404, told=False),
    Ending("the session is ended elsewhere", "rest session", "", "mine:", END_SESSION, 404, told=False),
    Ending("the session is ended elsewhere", "session of nobody's", "", "job:1~", END_SESSION, 404, told=False),
    Ending("the session expires", "session", "", "mine:", OLD_SESSION, 404, told=False),
    Ending("the session expires", "session", "", "story", OLD_SESSION, 200, told=False),
    Ending("the session expires", "session of nobody's", "", "job:1~", OLD_SESSION, 404, told=False),
    Ending(
        "the token is deleted", "rest token", "", "mine:", "Token.objects.filter(user=pk).delete()", 401, told=False
    ),
    Ending(
        "the key is another", "key", "", "story", "models.ApiKey.objects.filter(owner=pk).update(key=pk)", 401, False
    ),
    Ending("disconnect()", "session", "", "mine:", "disconnect(user=user)", 200),
    Ending("disconnect()", "session", "", "story", "disconnect(session=session)", 200),
    Ending("disconnect()", "key", "", "desk:", "disconnect(topic=topic)", 200),
    Ending("disconnect()", "token", "", "job:1", "disconnect(user=pk)", 200),
]

#: What ends nothing: how somebody is known, what opens the topic to them, the topic, and what happens.
STAYS = [
    Ending("a new password", "rest token", "", "mine:", NEW_PASSWORD, 200),
    Ending("a new password", "key", "", "mine:", NEW_PASSWORD, 200),
    Ending("a login", "session", "", "mine:", LOGIN, 200),
    Ending("another permission is taken", "session", "staff", "staff", TAKE, 200),
    Ending("a permission that a group still gives", "session", "member", ARTICLE, TAKE, 200),
    Ending("a logout elsewhere", "session", "", "mine:", OTHER_SESSION, 200),
    Ending("a logout", "token", "", "mine:", OTHER_SESSION, 200),
    Ending("somebody else is deactivated", "session", "", "mine:", OTHER_INACTIVE, 200),
    Ending("somebody else is disconnected", "session of nobody's", "", "job:1~", OTHER_DISCONNECTED, 200),
]

#: What time ends, while a stream is open: seconds that it is good for, which have to do for opening the streams.
SHORT = 6
ENDS_WITH_TIME = [
    Ending("a token expires", "token", "", "mine:", "", 401, told=False),
    Ending("a token for a topic expires", "token", "", "job:1", "", 401, told=False),
    Ending("a signed name expires", "session", "", "job:1~", "", 404, told=False),
    Ending("a signed name of nobody's expires", "session of nobody's", "", "job:1~", "", 404, told=False),
]


@dataclass
class Reader:
    """Somebody with a stream on each server."""

    person: dict[str, Any]
    streams: list[EventStream]

    async def ends(self, reason: str = "revoked") -> None:
        """Wait until both streams were closed with a word, and nothing else came."""
        for stream in self.streams:
            await stream.until(lambda stream=stream: stream.ends, what=f"{stream.url} closes the stream", limit=LIMIT)
            assert stream.ends == ["clean"]
            assert [block.data for block in stream.own("closing")] == [{"reason": reason}]
            assert stream.blocks[-1].type == "livefeed-closing"
            assert stream.events == []


async def enter(site: Site, stack: AsyncExitStack, ending: Ending, seconds: int = 0) -> Reader:
    """Let somebody come who has the right that ends, and open their streams."""
    person = await asyncio.to_thread(site.stage.call, "enter", ending.by, ending.trait, ending.topic, seconds)
    site.secrets |= secrets_of(person)
    streams = [
        EventStream(server.url, [person["name"]], headers=person["headers"], reconnect=False) for server in site.servers
    ]
    for stream in streams:
        await stack.enter_async_context(stream)
    for stream in streams:
        await stream.until(lambda stream=stream: stream.own("open") or stream.ends, what="a stream opens", limit=LIMIT)
        assert stream.ends == [], ending
    return Reader(person, streams)


async def happens(site: Site, ending: Ending, reader: Reader) -> None:
    """Let the right end."""
    if ending.code == "POST":
        async with httpx.AsyncClient(trust_env=False) as browser:
            response = await browser.post(f"{site.servers[0].url}/leave/", headers=reader.person["headers"])
            assert response.status_code == 200
    else:
        await asyncio.to_thread(site.stage.call, "act", ending.code, reader.person)


async def comes_back(site: Site, ending: Ending, reader: Reader) -> None:
    """Check what who comes back is told, wherever and for whatever."""
    since = reader.streams[0].last_event_id
    async with new_client() as client:
        for server in site.servers:
            asker = Asker(client, server, reader.person["headers"])
            asked = [asker.asks([reader.person["name"]], accept, since=since) for accept in (STREAM, PAGE, ITEMS)]
            for answer, accept in zip(await asyncio.gather(*asked), (STREAM, PAGE, ITEMS), strict=True):
                wanted = (
                    406
                    if ending.back == 200 and accept == ITEMS and ending.topic not in {"story", ARTICLE}
                    else ending.back
                )
                assert answer.status == wanted, (accept, answer.body)
                if wanted == 404:
                    absent = await asker.asks(["absent"], accept)
                    assert answer.looks[::2] == absent.looks[::2]


LOOK = "recheck()"


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda row: f"{row.what}, {row.by}, {row.topic}, {row.trait}")
async def test_what_ends_closes_the_streams_of_every_process_and_stays_closed(ending: Ending, site: Site) -> None:
    """The servers look at nobody by themselves for an hour: what closes at once was told to them."""
    async with AsyncExitStack() as stack:
        reader = await enter(site, stack, ending)
        await happens(site, ending, reader)
        if not ending.told:
            await asyncio.to_thread(site.stage.call, "act", LOOK, reader.person)
        await reader.ends()
        await comes_back(site, ending, reader)


async def test_what_time_ends_is_closed_at_the_next_look(site: Site) -> None:
    async with AsyncExitStack() as stack:
        readers = await asyncio.gather(*(enter(site, stack, ending, SHORT) for ending in ENDS_WITH_TIME))
        latest = max(reader.person["until"] for reader in readers)
        await asyncio.to_thread(site.stage.call, "wait_until", latest + 1)  # a name's seconds are whole ones
        await asyncio.to_thread(site.stage.call, "act", LOOK, readers[0].person)
        for ending, reader in zip(ENDS_WITH_TIME, readers, strict=True):
            await reader.ends()
            await comes_back(site, ending, reader)


async def test_what_still_holds_stays_open_when_everybody_is_looked_at(site: Site) -> None:
    """A witness loses a right without a word: their stream ends by the same look by which those of others stay."""
    witness = Ending("the witness", "session", "", "mine:", UPDATE_INACTIVE, 404)
    async with AsyncExitStack() as stack:
        readers = [await enter(site, stack, ending) for ending in STAYS]
        for ending, reader in zip(STAYS, readers, strict=True):
            await happens(site, ending, reader)
        last = await enter(site, stack, witness)
        await happens(site, witness, last)
        await asyncio.to_thread(site.stage.call, "act", LOOK, last.person)
        await last.ends()
        for ending, reader in zip(STAYS, readers, strict=True):
            await asyncio.to_thread(site.stage.call, "act", "publish(topic, {'still': 'here'})", reader.person)
            for stream in reader.streams:
                await stream.until(lambda stream=stream: stream.events, what=f"{ending.what}: an event comes")
                assert stream.events[0].data == {"still": "here"}
                assert (stream.ends, stream.own("closing")) == ([], [])
            await comes_back(site, ending, reader)


async def test_what_somebody_is_shown_is_decided_by_today_s_rights(site: Site) -> None:
    """Staff that is staff no more still may read the ledger, but not its margin: live, in a replay, and in pages."""
    staff = Ending("staff no more", "session", "staff", "ledger", "user.is_staff = False; user.save(); recheck()", 200)
    async with AsyncExitStack() as stack:
        reader = await enter(site, stack, staff)
        since = reader.streams[0].last_event_id
        await asyncio.to_thread(site.speak, "for staff")
        for stream in reader.streams:
            await stream.until(lambda stream=stream: len(stream.events) == 2, what="staff sees both")
            assert [block.data.get("margin") for block in stream.events] == ["in pencil"] * 2
        await happens(site, staff, reader)
        client = await stack.enter_async_context(new_client())
        for server in site.servers:
            asker = Asker(client, server, reader.person["headers"])
            head = site.after["ledger"]
            page = await asker.asks(["ledger"], PAGE, since=since)
            again = await asker.asks(["ledger"], STREAM, since=since, enough=lambda p, _, h=head: p.last_event_id == h)
            wanted = [{"pk": 1, "title": "ledger for staff"}]
            assert [event["data"] for event in page.json["events"]] == wanted
            assert again.events == wanted
            assert "in pencil" not in page.body.decode() + again.body.decode()
            assert "hidden" not in page.body.decode() + again.body.decode()


# -- afterwards -------------------------------------------------------------------------------------------------------


async def test_nothing_secret_was_written_down_and_nothing_failed(site: Site) -> None:
    """It runs last, when the logs have everything; and they are those of people who asked for all they could get."""
    async with new_client() as client:
        for who, status in {**dict.fromkeys(site.people, 0), "signed in": 404, "key that meets a bug": 401}.items():
            for server in site.servers:
                answer = await Asker(client, server, site.people[who]["headers"]).asks(["broken"], PAGE)
                assert answer.status == (status or answer.status)
    logs = [server.log() for server in site.servers] + [site.stage.log_path.read_text()]
    assert len(site.secrets) > 50
    for log in logs[:2]:
        assert "DEBUG" in log
        assert "BrokenFeed.has_view_permission failed for broken; it is refused." in log
        assert "by_key failed with RuntimeError" in log
        assert "Internal Server Error" not in log
    for log in logs:
        for secret in site.secrets:
            assert secret not in log, log[max(0, log.index(secret) - 300) :][:600]
        assert "password-of-" not in log
        assert "in pencil" not in log
