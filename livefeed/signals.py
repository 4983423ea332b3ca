"""The two Django signals of livefeed: one way in, one way to look on."""

from django.dispatch import Signal

#: Send it to publish: ``live_event.send(sender=Build, topic="build:42", type="progress", data={"percent": 70})``.
#: Takes what :func:`livefeed.publish` takes, by name, and raises what it raises.
live_event = Signal()

#: Sent for every event with ``event`` (an :class:`livefeed.Event`), once it is committed and numbered, in the process
#: that numbered it. Receivers run after the commit; what they raise is logged and harms nobody.
event_published = Signal()
