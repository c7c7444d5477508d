"""How states, times and foreign texts look: always escaped, always the same words."""

import re
from datetime import datetime, timedelta
from typing import Any

from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .clock import now
from .models.dead_letter import Urgency
from .states import (
    DeadLetterStatus,
    GroupStatus,
    ItemState,
    JobState,
    OperationStatus,
    Outcome,
)

CHECK = "M1.5 6.5 4.5 9.5 10.5 2.5"
CROSS = "M2.5 2.5 9.5 9.5M9.5 2.5 2.5 9.5"
BAR = "M1.5 6H10.5"
ARROW = "M10 6A4 4 0 1 1 8.6 3M8.8.6V3.2H6.2"
CLOCK = "M6 1.5A4.5 4.5 0 1 0 6 10.5A4.5 4.5 0 1 0 6 1.5M6 3.5V6L8 7.2"
DOT = "M6 4.5A1.5 1.5 0 1 0 6 7.5A1.5 1.5 0 1 0 6 4.5Z"
DISC = "M6 1.5A4.5 4.5 0 1 0 6 10.5A4.5 4.5 0 1 0 6 1.5Z"
DIAMOND = "M6 1 11 6 6 11 1 6Z"
UP = "M6 2 11 10H1Z"
DOUBLE_UP = "M6 .5 10.5 6H1.5ZM6 6 10.5 11.5H1.5Z"
DOWN = "M1 2.5H11L6 10Z"
PAUSE = "M4 2V10M8 2V10"
LIMIT = "M2 10H10M2 7H7M2 4H4"
BACK = "M5 2 1.5 6 5 10M1.5 6H10.5"

#: Shape and tone of every word that a badge can show; tones are in the stylesheet.
BADGES: dict[object, tuple[str, str]] = {
    JobState.SCHEDULED: (CLOCK, "quiet"),
    JobState.WAITING: (DOT, "calm solid"),
    JobState.ACTIVE: (DISC, "busy solid"),
    JobState.RETRYING: (ARROW, "warn"),
    JobState.COMPLETED: (CHECK, "good"),
    JobState.DEAD: (CROSS, "bad"),
    JobState.CANCELLED: (BAR, "quiet"),
    DeadLetterStatus.PENDING: (DIAMOND, "bad"),
    DeadLetterStatus.REQUEUED: (ARROW, "busy"),
    DeadLetterStatus.RECOVERED: (CHECK, "good"),
    DeadLetterStatus.PERMANENTLY_FAILED: (BAR, "quiet"),
    # Outcome and state share the words completed, retrying, dead, cancelled.
    Outcome.RETURNED: (BACK, "quiet"),
    Urgency.URGENT: (DOUBLE_UP, "bad solid"),
    Urgency.HIGH: (UP, "warn solid"),
    Urgency.NORMAL: (BAR, "quiet"),
    Urgency.LOW: (DOWN, "quiet solid"),
    GroupStatus.OPEN: (DIAMOND, "bad"),
    GroupStatus.REGRESSED: (BACK, "bad"),
    GroupStatus.SNOOZED: (CLOCK, "quiet"),
    GroupStatus.RESOLVED: (CHECK, "good"),
    OperationStatus.CANARY: (DIAMOND, "busy"),
    OperationStatus.PAUSED: (PAUSE, "warn"),
    OperationStatus.STOPPED: (CROSS, "bad"),
    OperationStatus.ABORTED: (BAR, "quiet"),
    OperationStatus.FINISHED: (CHECK, "good"),
    ItemState.SENT: (ARROW, "busy"),
    ItemState.SKIPPED: (BAR, "quiet"),
    "paused": (PAUSE, "warn"),
    "limited": (LIMIT, "calm"),
    "cancelling": (BAR, "warn"),
    "trouble": (DIAMOND, "bad"),
    "unusual": (DIAMOND, "warn"),
    "done": (CHECK, "good"),
    "failed": (CROSS, "bad"),
    "running": (DISC, "busy solid"),
}

#: What waits for somebody longer than this is old; seven times as long, very old.
AGING = timedelta(days=1)
#: Word of the badge beside the state of a job that shall stop.
CANCELLING = gettext_lazy("cancel requested")

#: Invisible or text-turning characters, and halves of pairs that no encoding accepts.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def plain(text: object) -> str:
    """Return foreign text with every unprintable character written as its code."""
    lines = str(text).replace("\r\n", "\n")
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", lines)


def excerpt(text: object, length: int = 120) -> str:
    """Return the first line of a foreign text, cut to `length` characters."""
    whole = str(text).strip()
    first, _newline, rest = whole[: length * 4].partition("\n")
    cut = plain(first)[:length].rstrip()
    return f"{cut}…" if rest or len(first) > len(cut) else cut


def name_tag(text: object) -> SafeString:
    """Return a foreign name that may break after each "_" and ".", and before inner capitals."""
    parts = re.split(r"(?<=[_.])|(?<=[a-z0-9])(?=[A-Z])", plain(text))
    return format_html_join("", "{}<wbr>", ((part,) for part in parts))


#: What stands where there is nothing; a phone leaves it out.
NOTHING: SafeString = format_html('<span class="qa-blank">{}</span>', "–")


def badge(value: Any, label: object = None) -> SafeString:
    """Return a state, status, outcome or priority as word, shape and colour.

    A value this version does not know is shown as its plain word.
    """
    shape, tone = BADGES.get(value, (DOT, "quiet"))
    word = label if label is not None else getattr(value, "label", value)
    return format_html(
        '<span class="qa-badge qa-{}"><svg viewBox="0 0 12 12" width="12" height="12"'
        ' aria-hidden="true" focusable="false"><path d="{}"/></svg>{}</span>',
        " qa-".join(tone.split()),
        shape,
        word,
    )


def span(length: timedelta, *, is_coarse: bool = False) -> str:
    """Return a length of time in two units at most: "41 ms", "4 min 10 s"; coarsely in one."""
    milliseconds = length / timedelta(milliseconds=1)
    if milliseconds < 1000:
        return _("%(count)d ms") % {"count": max(round(milliseconds), 0)}
    if milliseconds < 10_000:
        return _("%(count).1f s") % {"count": milliseconds / 1000}
    seconds = round(milliseconds / 1000)
    units = [
        (86_400, _("%(count)d d")),
        (3_600, _("%(count)d h")),
        (60, _("%(count)d min")),
        (1, _("%(count)d s")),
    ]
    for index, (size, words) in enumerate(units):
        if seconds >= size:
            count, rest = divmod(seconds, size)
            if not is_coarse and count < 10 and index + 1 < len(units):
                smaller, smaller_words = units[index + 1]
                if part := rest // smaller:
                    return f"{words % {'count': count}} {smaller_words % {'count': part}}"
            return words % {"count": count}
    return _("%(count)d s") % {"count": seconds}


def relative(moment: datetime) -> str:
    """Return "3 h ago" or "in 12 s"."""
    distance = now() - moment
    if timedelta(seconds=-1) < distance < timedelta(seconds=1):
        return _("now")
    if distance > timedelta(0):
        return _("%(span)s ago") % {"span": span(distance)}
    return _("in %(span)s") % {"span": span(-distance)}


def exact(moment: datetime) -> str:
    """Return a time to the second in the reader's zone."""
    return date_format(localtime(moment), "Y-m-d H:i:s T")


def time_tag(moment: datetime | None, words: str | None = None) -> SafeString | str:
    """Return a time in relative words, the exact one on hover and for machines."""
    if moment is None:
        return NOTHING
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        moment.isoformat(),
        exact(moment),
        relative(moment) if words is None else words,
    )


def age_tag(moment: datetime | None) -> SafeString | str:
    """Return how long ago something was, without "ago": for columns headed "age"."""
    if moment is None:
        return NOTHING
    words = span(max(now() - moment, timedelta(0)), is_coarse=True)
    return time_tag(moment, words)


def due_tag(moment: datetime) -> SafeString:
    """Return how soon something is due, or how late it is, in words and colour."""
    left = moment - now()
    words = span(abs(left), is_coarse=True).replace(" ", "\N{NO-BREAK SPACE}")
    if left < timedelta(0):
        tone, text = "bad", _("overdue %(span)s") % {"span": words}
    else:
        tone = "warn" if left < timedelta(days=1) else "quiet"
        text = _("due in %(span)s") % {"span": words}
    return format_html('<span class="qa-{}">{}</span>', tone, time_tag(moment, text))


def aging_tag(moment: datetime) -> SafeString:
    """Return the age of what waits for somebody; what waits for long in words and colour."""
    age = now() - moment
    if age < AGING:
        return format_html("{}", age_tag(moment))
    tone, word = ("bad", _("very old")) if age >= 7 * AGING else ("warn", _("old"))
    return format_html('{} <span class="qa-{} qa-late">{}</span>', age_tag(moment), tone, word)


def counted(attempts: int, of: int | None) -> str:
    """Return "1/5", or "1" where attempts are without end."""
    return f"{attempts}/{of}" if of is not None else str(attempts)
