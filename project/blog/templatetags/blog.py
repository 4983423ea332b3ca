"""Template filters of the demo."""

from datetime import datetime

from django import template
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.formats import date_format

register = template.Library()


@register.filter
def moment(value: str | datetime | None) -> str:
    """Write a point in time, given as in JSON, for readers without JavaScript: "22 Nov. 2025, 14:05"."""
    when = parse_datetime(value) if isinstance(value, str) else value
    return date_format(timezone.localtime(when), "j N Y, H:i") if when else ""
