"""What the elements say, in the language of the page: their script finds it in ``data-text-…`` attributes."""

from __future__ import annotations

from django.utils.translation import get_language, npgettext, pgettext

#: One number for each category of CLDR's plural rules that a language has, besides one and other: with it gettext is
#: asked for the form, which the script then chooses by Intl.PluralRules. Of a language that is not here, "other" does.
SAMPLES = {
    "ar": {"zero": 0, "one": 1, "two": 2, "few": 3, "many": 11, "other": 100},
    "be": {"one": 1, "few": 2, "many": 5, "other": 5},
    "cs": {"one": 1, "few": 2, "other": 5},
    "lt": {"one": 1, "few": 2, "other": 10},
    "pl": {"one": 1, "few": 2, "many": 5, "other": 5},
    "ru": {"one": 1, "few": 2, "many": 5, "other": 5},
    "sk": {"one": 1, "few": 2, "other": 5},
    "sl": {"one": 1, "two": 2, "few": 3, "other": 5},
    "uk": {"one": 1, "few": 2, "many": 5, "other": 5},
}


def feed_texts() -> dict[str, str]:
    """Return the texts of a live list: its states, its buttons. "#" stands for a number."""
    return {
        "connecting": pgettext("livefeed", "Connecting…"),
        "catching-up": pgettext("livefeed", "Catching up…"),
        "open": pgettext("livefeed", "Live"),
        "waiting": pgettext("livefeed", "Connection lost. Trying again."),
        "polling": pgettext("livefeed", "Live, a little late"),
        "limited": pgettext("livefeed", "Too many connections. Trying again later."),
        "paused": pgettext("livefeed", "Paused"),
        "denied": pgettext("livefeed", "No longer available to you. Reload the page."),
        "failed": pgettext("livefeed", "Live updates stopped. Reload the page."),
        "closed": pgettext("livefeed", "Live updates ended."),
        "pause": pgettext("livefeed", "Pause"),
        "resume": pgettext("livefeed", "Resume"),
        **{f"new-{category}": text for category, text in new_items().items()},
    }


def new_items() -> dict[str, str]:
    """Return "# new items" for each plural category of the language at hand."""
    language = (get_language() or "").partition("-")[0]
    samples = SAMPLES.get(language, {"one": 1, "other": 2})
    return {category: npgettext("livefeed", "# new item", "# new items", n) for category, n in samples.items()}
