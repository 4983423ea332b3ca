"""What every page of the demo needs."""

from typing import Any

from django.http import HttpRequest

from project.blog.models import Section


def site(request: HttpRequest) -> dict[str, Any]:
    """Give every template the sections, for the navigation, and the topic that belongs to this user alone."""
    return {"sections": Section.objects.all(), "notice_topic": f"notice:{request.user.pk}"}
