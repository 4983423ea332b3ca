"""Target ``view``: whatever is asked, and however, the answer is what the documentation says, and nobody else's.

What must come is told by a model of its own: whose topics are whose, and what follows a cursor (`following`).
"""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any, NamedTuple
from urllib.parse import quote

from django.conf import settings as django_settings
from django.core.exceptions import TooManyFieldsSent
from django.http import QueryDict
from django.http.request import split_domain_port, validate_host

from livefeed.conf import settings
from livefeed.cursors import NONE_YET, Position, entry, topic_mark

from . import site, words
from .cursor import understood
from .expecting import expect
from .reference import Dispatched, parsed
from .site import EPOCH, KEPT, STORED, Answer
from .words import Case

METHODS = ["HEAD", "OPTIONS", "POST", "PUT", "DELETE", "TRACE", "get", "", "CONNECT", "\r\n", "PATCH"]
ACCEPT = ["text/event-stream", "application/json", "text/html"]
TOPICS = [
    *("plain", "plain", "plain:trimmed", "plain:none", "build:42", "testapp.article", "secret:1", "testapp.review"),
    *("{secret:1 for ann}", "{secret:1 for bob}", "{secret:1 for nobody}", "{plain for ann}", "testapp.note:open"),
]
HEADERS = [
    *(
        "accept",
        "last-event-id",
        "last-event-id",
        "authorization",
        "cookie",
        "origin",
        "sec-fetch-site",
        "sec-fetch-mode",
    ),
    *("x-forwarded-for", "host", "user-agent", "accept-encoding", "accept-language", "x-requested-with", "referer"),
    *("forwarded", "content-type", "content-length", "range", "if-none-match", "te", "last_event_id", "x-csrftoken"),
]
SETTINGS: dict[str, list[Any]] = {
    "LIVEFEED_TRUSTED_PROXIES": [0, 1, 2, 50],
    "LIVEFEED_MAX_TOPICS": [1, 2, 50, 150],
    "LIVEFEED_MAX_REPLAY": [0, 1, 2, 10_000],
    "LIVEFEED_ALLOWED_ORIGINS": [[], ["https://app.example"]],
}
#: Who may read what a feed owns, by the feed's name. Feeds that are not here are not asked for, or nobody may.
PUBLIC = {"plain", "testapp.article", "testapp.elsewhere", "news.article"}
CLOSED = {"detail", "testapp.review", "testapp.task"}
_TOPIC = re.compile(r"(?!:)[A-Za-z0-9._:-]{1,200}")


# -- cases ------------------------------------------------------------------------------------------------------------


def make(random: Random) -> Case:
    query = "&".join(_parameter(random) for _ in range(random.choice([0, 1, 1, 1, 2, 3, 6])))
    headers = [_header(random) for _ in range(random.choice([0, 0, 1, 2, 4]))]
    if random.random() < 0.95:
        headers.insert(0, ["accept", random.choice([*ACCEPT, "text/event-stream", "*/*", words.latin(random)])])
    return {
        "method": "GET" if random.random() < 0.95 else random.choice(METHODS),
        "query": query,
        "headers": headers,
        "who": random.choice(["", "ann", "bob"]),
        "settings": {name: random.choice(values) for name, values in SETTINGS.items() if random.random() < 0.2},
    }


def _parameter(random: Random) -> str:
    kind = random.randrange(20)
    if kind == 14 and random.random() < 0.2:
        return "&".join([f"topic=plain:{number}" for number in range(random.choice([2, 50, 51, 999, 1001, 3000]))])
    if kind < 11 or kind == 14:
        return "topic=" + random.choice(TOPICS)
    if kind < 14:
        return random.choice(["since", "lastEventId", "last_event_id"]) + "=" + quote(_cursor(random), errors="replace")
    if kind == 15:
        name = random.choice(["client", "limit", "insert", "show", "key", "viewer", "topic"])
        return name + "=" + quote(words.text(random), errors="replace")
    if kind == 16:
        return random.choice(
            [
                *("client=abc_-1", "client=", "limit=5", "limit=0", "insert=append", "insert=x", "limit=9999"),
                *("show=items", "show=count", "show=value", "show=", "show=value&key=1", "show=value&key=x", "key="),
            ]
        )
    raw = random.choice(["%", "%0", "%00", "%zz", "%ed%a0%80", "%ff", "%F0%9F", "+", "%0d%0a", ";", "%u0041", "=", "&"])
    return words.latin(random)[:5_000] + raw + random.choice(["", "topic=plain", words.latin(random)])


def _header(random: Random) -> list[str]:
    name = random.choice(HEADERS)
    sensible = {
        "accept": [
            *ACCEPT,
            "text/html;q=0.1,text/event-stream",
            "a/b",
            "*/*;q=0",
            "text/html;a*=utf-8'en'%20",
            "text/html;a*=x-no'en'%20",
        ],
        "last-event-id": [_cursor(random)],
        "cookie": ["sessionid=x", "sessionid=fuzzing-session-of-nobody", 'sessionid="a\\012bcdefghi"', "csrftoken=;;"],
        "origin": [
            "null",
            "https://app.example",
            "https://app.example.evil.example",
            "https://evil.example",
            "http://testserver",
            "http://testserver.evil.example",
        ],
        "sec-fetch-site": ["same-origin", "cross-site", "same-site", "none"],
        "sec-fetch-mode": ["cors", "navigate"],
        "user-agent": ["Mozilla/5.0", "curl/8"],
        "authorization": [
            *("Bearer x", "Basic YTpi", "Bearer", "bearer  a b", "Bearer livefeed_", "Bearer livefeed_.a:b"),
            *(
                "Bearer {token of ann}",
                "Bearer {token of ann for plain secret:1}",
                "Bearer {token of bob for build:42}",
            ),
            *("bearer {token of nobody for secret:1} ", "Bearer {token of ann}x", "Token {token of ann}"),
        ],
        "x-forwarded-for": ["1.2.3.4", "1.2.3.4, ::1", ",,,", "unknown", " , " * 40],
        "content-type": [f"text/plain; charset={name}" for name in ("utf-8", "utf-16", "hex", "idna", "utf-7", "x")],
        "host": ["testserver", "[::1]:80", "a,b", "testserver:99999", "evil.example"],
    }
    return [name, random.choice([*sensible.get(name, []), words.latin(random)])]


def _cursor(random: Random) -> str:
    entries = [_entry(random) for _ in range(random.choice([1, 1, 1, 2, 4]))]
    garbage = words.latin(random)
    return random.choice([".".join(entries), ".".join(entries), ".".join([*entries, garbage]), garbage])


def _entry(random: Random) -> str:
    topic = random.choice(["plain", "plain", "plain:trimmed", "build:42", "secret:1", "testapp.article"])
    seq = random.choice([0, 1, 2, 4, 5, 6, 7, 8, 9, words.number(random)])
    epoch = random.choice([EPOCH, EPOCH, EPOCH, "other1"])
    return entry(topic, random.choice([Position(epoch, seq), Position(epoch, seq), NONE_YET]))


# -- the model --------------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """What a case asks for, read without livefeed."""

    names: list[str]
    cursor: str
    too_many_fields: bool


def asked_by(scope: dict[str, Any]) -> Asked:
    """Return what a request asks for."""
    try:
        fields = QueryDict(scope["query_string"])
    except TooManyFieldsSent:
        return Asked([], "", True)
    sent = [value.decode("latin-1") for name, value in scope["headers"] if name == b"last-event-id"]
    texts = [",".join(sent), *(fields.get(name, "") for name in ("since", "lastEventId", "last_event_id"))]
    return Asked(fields.getlist("topic"), next(filter(None, texts), ""), False)


def readable(names: list[str], who: site.Who) -> tuple[list[str], list[str]]:
    """Return the topics that somebody may read, and the names of others, each once."""
    granted = list(dict.fromkeys(_topic(name) for name in names if _may_read(_topic(name), name, who)))
    return granted, list(dict.fromkeys(name for name in names if _topic(name) not in granted))


def _topic(name: str) -> str:
    return name.split("~")[0]


def _may_read(topic: str, name: str, who: site.Who) -> bool:
    feed = topic.split(":")[0]
    if who.scope is not None and topic not in who.scope:
        return False
    if feed in PUBLIC:
        return True
    if feed == "build":
        return who.user is not None
    if feed == "testapp.note":
        return topic.startswith("testapp.note:open") or topic == f"testapp.note:of-{who.user.pk if who.user else None}"
    if feed in CLOSED:
        return False
    return who.scope is not None or (topic in STORED and name == site.current().signed(topic, who.name))


def bearer(headers: list[tuple[bytes, bytes]], who: site.Who) -> site.Who | None:
    """Return who asks, by a token if one of livefeed's was sent; None where it does not hold."""
    sent = ",".join(value.decode("latin-1") for name, value in headers if name == b"authorization")
    scheme, _, token = sent.partition(" ")
    if scheme.lower() != "bearer" or not token.strip().startswith("livefeed_"):
        return who
    return site.current().bearers.get(token.strip())


def is_foreign(scope: dict[str, Any]) -> bool:
    """Tell whether a page of another origin sent this, which was allowed none."""
    sent: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        sent[name] = sent[name] + "," + value.decode("latin-1") if name in sent else value.decode("latin-1")
    if sent.get(b"origin") in getattr(django_settings, "LIVEFEED_ALLOWED_ORIGINS", []):
        return False
    if b"sec-fetch-site" in sent:
        return sent[b"sec-fetch-site"] not in ("same-origin", "none")
    return b"origin" in sent and sent[b"origin"] != "http://" + sent.get(b"host", "testserver")


class Following(NamedTuple):
    """What has to follow a cursor on one topic: a reset with its reason, or events, by their numbers."""

    reason: str
    seqs: range


def following(topic: str, cursor: str, most: int) -> Following:
    """Return what has to follow a cursor on a topic."""
    head = len(STORED.get(topic, []))
    floor = head - KEPT if topic == "plain:trimmed" else 0
    nothing = range(0)
    said = understood(cursor)
    if cursor and said is None:
        return Following("garbage", nothing)
    claims = (said or {}).get(topic_mark(topic), [])
    if not claims:
        return Following("", nothing)
    losses = {claim: _loss(claim, head, floor) for claim in claims}
    usable = [claim for claim in claims if not losses[claim]]
    claim = min(usable or claims, key=lambda position: position.seq)
    reason = losses[claim] or ("behind" if most and head - claim.seq > most else "")
    return Following(reason, nothing if reason else range(claim.seq + 1, head + 1))


def _loss(claim: Position, head: int, floor: int) -> str:
    if claim == NONE_YET:
        return "trimmed" if floor else ""
    if claim.epoch != (EPOCH if head else ""):
        return "epoch"
    if claim.seq > head:
        return "ahead"
    return "trimmed" if claim.seq < floor else ""


# -- the check --------------------------------------------------------------------------------------------------------


def check(case: Case) -> None:
    here = site.current()
    here.errors.clear()
    here.begin()
    who, scope = requested(case)
    with site.configured(allowed(case["settings"])):
        if site.request_of(scope) is None:
            return
        answer = here.ask(scope)
        _always(answer, here)
        if answer.status == 400 and not _host_is_good(scope):
            return  # Django's own answer, before any view
        if scope["method"] == "GET":
            _answered(answer, scope, who)
        elif scope["method"] == "OPTIONS":
            expect(answer.status == 200 and answer.header("allow"), f"OPTIONS was answered with {answer.status}")


def requested(case: Case) -> tuple[site.Who, dict[str, Any]]:
    """Return who asks, and the ASGI scope of what is asked."""
    here = site.current()
    who = here.who.get(case["who"], here.who[""])
    query = here.filled_in(case["query"]).encode("latin-1", "replace")
    headers = [_raw(name, here.filled_in(value)) for name, value in case["headers"]]
    if who.cookie:
        headers = _with_cookie(headers, who.cookie)
    return who, here.scope(case["method"], query, headers)


def _raw(name: str, value: str) -> tuple[bytes, bytes]:
    return name.encode("latin-1", "replace").lower(), value.encode("latin-1", "replace")


def _with_cookie(headers: list[tuple[bytes, bytes]], cookie: str) -> list[tuple[bytes, bytes]]:
    """Put a session's cookie behind all others, in one header, as a server hands them on: the last of a name counts."""
    sent = [value for name, value in headers if name == b"cookie"]
    return [header for header in headers if header[0] != b"cookie"] + [(b"cookie", b";".join([*sent, cookie.encode()]))]


def allowed(said: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if name in SETTINGS and value in SETTINGS[name]}


def _always(answer: Answer, here: site.Site) -> None:
    """What holds for every answer, whatever was asked."""
    expect(not here.errors, f"failed: {here.errors}")
    expect(200 <= answer.status < 500, f"status {answer.status}: {answer.body[:200]!r}")
    expect(not 300 <= answer.status < 400, f"redirected to {answer.header('location')!r}")
    expect(answer.open_streams == 0, f"{answer.open_streams} streams are still open")
    for name, value in answer.headers:
        expect(not set(name + value) & set("\r\n\0"), f"the header {name!r}: {value!r} can be split")
    other = answer.header("access-control-allow-origin")
    expect(other in ["", *getattr(django_settings, "LIVEFEED_ALLOWED_ORIGINS", [])], f"{other!r} may read it")
    expect(b"fuzzing-session-of" not in answer.body, "a session's key is in the body")


def _answered(answer: Answer, scope: dict[str, Any], who: site.Who) -> None:
    asked, headers = asked_by(scope), scope["headers"]
    found = bearer(headers, who)
    if is_foreign(scope) or found is None:
        expect(answer.status in ((403,) if is_foreign(scope) else (400, 401, 406, 414)), f"status {answer.status}")
        _problem(answer, asked, [])
        return
    who = found
    granted, refused = readable(asked.names, who)
    kind = answer.header("content-type")
    if answer.status != 200:
        _problem(answer, asked, granted)
        _justified(answer, asked, scope, granted, who)
        return
    expect("no-store" in answer.header("cache-control"), f"may be cached: {answer.header('cache-control')!r}")
    expect(granted, f"200 for nothing: {answer.body[:200]!r}")
    expect(len(asked.names) <= settings.MAX_TOPICS, f"{len(asked.names)} topics")
    if kind == "text/event-stream":
        _stream(answer, asked, granted, refused)
    elif kind == "application/json":
        _page(json.loads(answer.body), asked, granted, refused)
    else:
        expect(kind.startswith("text/html"), f"the content type {kind!r}")
        expect(len(granted) == 1, f"a snapshot of {granted}")
        expect(b"<script>alert" not in answer.body, "HTML of an item got through")


def _host_is_good(scope: dict[str, Any]) -> bool:
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    domain = split_domain_port(",".join(hosts))[0] if hosts else "testserver"
    return bool(domain) and validate_host(domain, ["*"])


def _problem(answer: Answer, asked: Asked, granted: list[str]) -> None:
    expect(
        answer.header("content-type") == "application/problem+json", f"an error as {answer.header('content-type')!r}"
    )
    problem = json.loads(answer.body)
    expect(problem["status"] == answer.status, f"{problem} with the status {answer.status}")
    expect({"type", "title", "detail"} <= set(problem), f"a problem without its parts: {problem}")
    expect(len(answer.body) < 2_000, f"{len(answer.body)} bytes of error")
    malformed = [name for name in map(_topic, asked.names) if not _TOPIC.fullmatch(name)]  # what is none, is shown
    for topic in map(_topic, asked.names):
        if len(topic) > 5 and topic not in granted and not any(topic in name for name in malformed):
            expect(topic not in problem["detail"], f"{topic!r} is told to somebody who may not read it")


def _justified(answer: Answer, asked: Asked, scope: dict[str, Any], granted: list[str], who: site.Who) -> None:
    """Check that a request was refused for a reason that there is."""
    sent = dict(scope["headers"])
    topics = list(map(_topic, asked.names))
    unknown = b"authorization" in sent and who.user is None and who.scope is None
    malformed = not topics or len(topics) > settings.MAX_TOPICS or not all(map(_TOPIC.fullmatch, topics))
    if answer.status in (401, 404):
        expect(not granted and not malformed, f"{answer.status} for what is there")
        expect(unknown == (answer.status == 401), f"{answer.status} for {who}")
    elif answer.status == 406:
        plain = [value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"]
        expect(plain not in ([], *([kind] for kind in ACCEPT[:2]), ["*/*"]), f"406 for Accept: {plain}")
    elif answer.status == 414:
        expect(len(scope["query_string"]) > 32_768, f"414 for {len(scope['query_string'])} bytes")
    else:
        expect(answer.status == 400, f"the status {answer.status}")


def _stream(answer: Answer, asked: Asked, granted: list[str], refused: list[str]) -> None:
    parser = parsed(answer.body)
    expect(not answer.ended, f"the stream ended: {answer.body[-300:]!r}")
    expect(not parser.unfinished, f"the stream ends within a block: {answer.body[-100:]!r}")
    expect(parser.retry and 2_000 <= parser.retry <= 5_000, f"retry {parser.retry}")
    expect(set(parser.fields) <= {"id", "event", "data", "retry", "topic"}, f"fields {set(parser.fields)}")
    expect(parser.comments == 1, f"{parser.comments} comments")
    opening, *rest = parser.events
    follow = {topic: following(topic, asked.cursor, settings.MAX_REPLAY) for topic in granted}
    resets = [(topic, found.reason) for topic, found in follow.items() if found.reason]
    expect(opening.type == "livefeed-open", f"it begins with {opening}")
    data = json.loads(opening.data)
    expect(data["topics"] == granted, f"{data['topics']} are open instead of {granted}")
    expect(data["refused"] == refused, f"{data['refused']} are refused instead of {refused}")
    expect(data["resumed"] is (not resets if asked.cursor else None), f"resumed is {data['resumed']}")
    told = [json.loads(event.data) for event in rest[: len(resets)]]
    expect([(reset["topic"], reset["reason"]) for reset in told] == resets, f"{told} instead of {resets}")
    expect(all(event.type == "livefeed-reset" for event in rest[: len(resets)]), f"no resets: {rest}")
    _events(rest[len(resets) :], follow)


def _events(events: list[Dispatched], follow: dict[str, Following]) -> None:
    several = len(follow) > 1
    left = {topic: list(found.seqs) for topic, found in follow.items()}
    for event in events:
        topic = event.topic if several else next(iter(follow))
        expect(left.get(topic), f"{event} was not to come")
        seq = left[topic].pop(0)
        stored = STORED[topic][seq - 1]
        as_text = topic.startswith("plain") and isinstance(stored, str)
        wanted = _normal(str(stored)) if as_text else json.dumps(stored, ensure_ascii=False, separators=(",", ":"))
        expect((event.type, event.data) == ("message", wanted), f"{event} instead of {wanted!r}")
        claimed = (understood(event.id) or {}).get(topic_mark(topic))
        expect(claimed == [Position(EPOCH, seq)], f"the id {event.id!r} is not number {seq} of {topic}")
    expect(not any(left.values()), f"{left} did not come")


def _normal(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _page(page: dict[str, Any], asked: Asked, granted: list[str], refused: list[str]) -> None:
    expect(page["topics"] == granted, f"{page['topics']} instead of {granted}")
    expect(page["refused"] == refused, f"{page['refused']} are refused instead of {refused}")
    follow = {topic: following(topic, asked.cursor, 0) for topic in granted}
    resets = {topic: found.reason for topic, found in follow.items() if found.reason}
    expect({reset["topic"]: reset["reason"] for reset in page["resets"]} == resets, f"{page['resets']}: {resets}")
    for topic, found in follow.items():
        events = [(event["seq"], event["data"]) for event in page["events"] if event["topic"] == topic]
        expect(events == [(seq, STORED[topic][seq - 1]) for seq in found.seqs], f"{events} on {topic}")
    expect(understood(page["cursor"]) is not None, f"the cursor {page['cursor']!r}")
