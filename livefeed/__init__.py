"""Live pages for Django: model changes arrive in every open page, over Server-Sent Events.

This package imports only the writing half, and works before ``django.setup()``.
"""

from .events import Event
from .feeds import LiveFeed
from .history import acursor, cursor
from .livemodel import LiveModel
from .publishing import apublish, publish
from .registry import register
from .revoking import adisconnect, arecheck, disconnect, recheck
from .signals import event_published, live_event
from .tokens import create_token

__version__ = "0.1.0"

__all__ = [
    "Event",
    "LiveFeed",
    "LiveModel",
    "acursor",
    "adisconnect",
    "apublish",
    "arecheck",
    "create_token",
    "cursor",
    "disconnect",
    "event_published",
    "live_event",
    "publish",
    "recheck",
    "register",
]
