"""Pages of the staged site as text, what watches over them, and how a test waits for them under a strict policy."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from tests.e2e import staged_stream

if TYPE_CHECKING:
    from tests.e2e.engines import Tab

LIMIT = 20.0  # seconds until what must happen has happened

# Runs before the module: notes whatever the policy stops, and every event of the elements.
WATCH = """
window.violations = [];
window.seen = [];
window.loads = 0;
document.addEventListener('securitypolicyviolation', (e) => violations.push(`${e.violatedDirective} ${e.blockedURI}`));
window.addEventListener('pageshow', (e) => { window.loads += 1; window.restored = e.persisted; });
for (const name of ['state', 'message', 'gap', 'limit'])
  addEventListener(`livefeed:${name}`, (e) => seen.push({ name, feed: e.target.id, ...e.detail }));
"""

ITEM = (
    '<article data-key="{key}">'
    '<a data-attr-href="url" href="{url}"><span data-field="title">{title}</span></a>'
    "</article>"
)
TEXTS = (
    'data-text-connecting="Connecting…" data-text-open="Live" data-text-waiting="Trying again" '
    'data-text-denied="Stopped" data-text-new-one="# new item" data-text-new-other="# new items" '
    'data-text-pause="Pause" data-text-resume="Resume"'
)


def item(key: object, title: str = "") -> str:
    return ITEM.format(key=key, url=f"/a/{key}" if key else "", title=html.escape(title))


def feed(
    items: str = "",
    *,
    name: str = "feed",
    topic: str = "news.article",
    cursor: str = "",
    src: str = "/livefeed/",
    viewer: str = "",
    attributes: str = 'limit="4" insert="prepend"',
    template: str = "",
    texts: str = TEXTS,
) -> str:
    viewer = viewer and f'viewer="{viewer}"'
    cursor = cursor or staged_stream.cursor(0, topic.split("~")[0])
    role = "log" if "append" in attributes else "feed" if items else "group"
    return f"""
      <live-feed id="{name}" src="{src}" topic="{topic}" cursor="{cursor}" {viewer} {attributes} {texts}>
        <div data-live-bar><p data-live-status hidden></p><button type="button" data-live-pause hidden></button></div>
        <button type="button" data-live-new hidden></button>
        <div data-live-list role="{role}" aria-label="News">{items}</div>
        <template>{template or item("")}</template>
      </live-feed>"""


def document(
    body: str, *, lang: str = "en", direction: str = "ltr", head: str = "", nonce: str = "", static: str = "/static/"
) -> str:
    nonce = nonce and f'nonce="{nonce}"'
    return f"""<!doctype html><html lang="{lang}" dir="{direction}"><head><meta charset="utf-8"><title>Test</title>
      <meta name="viewport" content="width=device-width">
      <link rel="stylesheet" href="{static}livefeed.css" crossorigin>
      <script {nonce} src="/static/watch.js"></script>{head}
      <script {nonce} type="module" src="{static}livefeed.js" crossorigin></script>
      </head><body>{body}</body></html>"""


# Playwright's own `wait_for_function` needs eval(), which the policies here forbid.
UNTIL = """async ([limit, argument]) => {
  const end = performance.now() + limit;
  while (!(CONDITION)) {
    if (performance.now() > end) throw new Error('in vain: ' + document.body.innerHTML + JSON.stringify(window.seen));
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}"""


def until(page: Tab, condition: str, argument: object = None) -> None:
    """Wait until the JavaScript expression holds; it may use `argument`."""
    page.evaluate(UNTIL.replace("CONDITION", condition), [LIMIT * 1000, argument])


KEYS = "[...document.querySelectorAll(`#${argument[0]} [data-live-list] > *`)].map(e => e.dataset.key)"


def keys(page: Tab, name: str = "feed") -> list[str]:
    found: list[str] = page.evaluate(f"argument => {KEYS}", [name])
    return found


def wait_for_keys(page: Tab, wanted: list[int], name: str = "feed") -> None:
    until(page, f"{KEYS}.join() === argument[1]", [name, ",".join(map(str, wanted))])
