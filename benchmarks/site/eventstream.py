"""django-eventstream's side of the site."""

from django_eventstream import send_event
from django_eventstream.channelmanager import DefaultChannelManager


class SignedIn(DefaultChannelManager):
    """Open to who is signed in."""

    def can_read_channel(self, user, channel):
        return user is not None and user.is_authenticated


def on_saved(sender, instance, **kwargs):
    """Send what livefeed's feed sends."""
    send_event("article", "updated", {"id": instance.pk, "title": instance.title, "url": instance.url})
