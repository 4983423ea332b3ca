"""What to test live pages with: see what is published, and read a stream as a client does. Our own tests use it too.

``TestCase`` never commits, so what is published in one stays unseen: use ``TransactionTestCase`` (pytest:
``django_db(transaction=True)``), or run the callbacks with Django's ``captureOnCommitCallbacks(execute=True)``.
"""

from .capturing import capture_events
from .histories import HistoryContract
from .streams import EventStreamClient, EventStreamParser, ServerSentEvent, open_stream

__all__ = [
    "EventStreamClient",
    "EventStreamParser",
    "HistoryContract",
    "ServerSentEvent",
    "capture_events",
    "open_stream",
]
