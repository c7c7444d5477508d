"""What the templates of messages need beside Django's own."""

from django import template
from django.utils import formats, timezone
from django.utils.dateparse import parse_datetime

register = template.Library()


@register.filter
def moment(value: str) -> str:
    """Show a time of the context in the site's zone and the message's language."""
    parsed = parse_datetime(value)
    if parsed is None:
        return value
    return formats.date_format(timezone.localtime(parsed), "SHORT_DATETIME_FORMAT")
