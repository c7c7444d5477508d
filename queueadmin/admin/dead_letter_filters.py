"""Which dead letters a list shows: tabs, the filters beside it, and those of links."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db.models import Exists, OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.utils.dateparse import parse_datetime
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from .. import display
from ..clock import now
from ..failuregroups import WINDOWS
from ..models import DeadLetter, FailureGroup, Note
from ..states import DeadLetterStatus
from .lists import SeenFilter, TabFilter, bounded_count

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise


class StatusTabs(TabFilter):
    """Whose turn it is, then how it went."""

    title = _("status")
    parameter_name = "status"
    default = "pending"

    def lookups(self, request: HttpRequest, model_admin: Any) -> "list[tuple[str, _StrPromise]]":
        """Return the views on pending ones first."""
        self.request = request
        return [
            ("mine", _("mine")),
            ("unassigned", _("unassigned")),
            ("mentions", _("mentions")),
            (DeadLetterStatus.PENDING.value, DeadLetterStatus.PENDING.label),
            ("snoozed", _("snoozed")),
            *(
                (status.value, status.label)
                for status in DeadLetterStatus
                if status != DeadLetterStatus.PENDING
            ),
            ("all", _("all")),
        ]

    def choose(self, rows: "QuerySet[Any]", tab: str) -> "QuerySet[Any]":
        """Return the dead letters behind a tab; a snoozed one is in no tab that asks for work."""
        if tab in _ASKS:
            return self._pending(rows, tab).filter(snoozed_at=None)
        match tab:
            case "all":
                return rows
            case "mentions":
                return rows.filter(pk__in=self._mentions)
            case "snoozed":
                return self._pending(rows, tab).filter(snoozed_at__isnull=False)
        return rows.filter(status=tab)

    def count(self, rows: "QuerySet[Any]", tab: str) -> int:
        """Count what asks for work as all that is pending, less what is snoozed.

        Both are answered by indexes alone; to look at `snoozed_at` of ten thousand rows would
        read ten thousand pages of the table.
        """
        if tab not in _ASKS:
            return super().count(rows, tab)
        pending = self._pending(rows, tab)
        asleep = bounded_count(pending.filter(snoozed_at__isnull=False))
        return bounded_count(pending, more=asleep) - asleep

    def _pending(self, rows: "QuerySet[Any]", tab: str) -> "QuerySet[Any]":
        pending = rows.filter(status=DeadLetterStatus.PENDING)
        match tab:
            case "mine":
                return pending.filter(assignee=self.request.user.pk)
            case "unassigned":
                return pending.filter(assignee=None)
        return pending

    @cached_property
    def _mentions(self) -> list[int]:
        """Return the newest that have a note for the reader; few, so they are asked for first."""
        notes = Note.objects.filter(mentioned=self.request.user.pk).order_by("-pk")
        return list(notes.values_list("dead_letter", flat=True)[:_MENTIONS])


#: Tabs of what waits for somebody now.
_ASKS = ("mine", "unassigned", DeadLetterStatus.PENDING.value)
_MENTIONS = 1_000


class QueueFilter(SeenFilter):
    """Dead letters of one queue."""

    title = _("queue")
    parameter_name = "queue"
    newest = ("status", "-died_at")


class ActorFilter(SeenFilter):
    """Dead letters of one actor."""

    title = _("job")
    parameter_name = "actor"
    newest = ("status", "-died_at")


class OwnerFilter(admin.SimpleListFilter):
    """Dead letters of one person."""

    title = _("owner")
    parameter_name = "owner"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the staff who own any."""
        people = get_user_model()._default_manager.filter(
            Exists(DeadLetter.objects.filter(assignee=OuterRef("pk"))), is_staff=True
        )
        return [(str(person.pk), person.get_username()) for person in people.order_by("pk")[:200]]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Return the chosen person's."""
        known = {value for value, _label in self.lookup_choices}
        return queryset.filter(assignee=self.value()) if self.value() in known else queryset


class GivenFilter(admin.SimpleListFilter):
    """A filter that only addresses set, as the numbers of other pages do; shown while it is on."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the value that is given, in words."""
        value = self.value()
        return [(value, self.word(value))] if value else []

    def word(self, value: str) -> str:
        """Return the value for people."""
        return display.plain(value)[:100]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Return the rows with the given value; none for one that makes no sense."""
        value = self.value()
        if not value:
            return queryset
        # No stored text has NUL, and PostgreSQL refuses the very question.
        return queryset.none() if "\0" in value else self.choose(queryset, value)

    def choose(self, rows: "QuerySet[Any]", value: str) -> "QuerySet[Any]":
        """Return the rows with this value."""
        raise NotImplementedError


class GroupFilter(GivenFilter):
    """Dead letters of one failure group."""

    title = _("failure group")
    parameter_name = "group"

    def word(self, value: str) -> str:
        """Return its label."""
        return f"G-{display.plain(value)[:18]}"

    def choose(self, rows: "QuerySet[Any]", value: str) -> "QuerySet[Any]":
        """Return those with its fingerprint."""
        if not (value.isascii() and value.isdecimal() and len(value) <= 18):
            return rows.none()
        group = FailureGroup.objects.filter(pk=int(value)).values("fingerprint")[:1]
        return rows.filter(fingerprint=Subquery(group))


class SinceFilter(GivenFilter):
    """Dead letters that died since a moment."""

    title = _("died since")
    parameter_name = "since"

    def word(self, value: str) -> str:
        """Return the moment to the second."""
        moment = _moment(value)
        return display.exact(moment) if moment else super().word(value)

    def choose(self, rows: "QuerySet[Any]", value: str) -> "QuerySet[Any]":
        """Return the younger ones."""
        moment = _moment(value)
        return rows.filter(died_at__gte=moment) if moment else rows.none()


class ReleaseFilter(GivenFilter):
    """Dead letters of one release."""

    title = _("release")
    parameter_name = "release"

    def choose(self, rows: "QuerySet[Any]", value: str) -> "QuerySet[Any]":
        """Return those that failed in it."""
        return rows.filter(release=value)


class HostFilter(GivenFilter):
    """Dead letters of one host."""

    title = _("host")
    parameter_name = "host"

    def choose(self, rows: "QuerySet[Any]", value: str) -> "QuerySet[Any]":
        """Return those that failed there."""
        return rows.filter(worker__startswith=f"{value}:")


class AgeFilter(admin.SimpleListFilter):
    """Dead letters by when they died: the windows of the matrix."""

    title = _("age")
    parameter_name = "age"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the windows."""
        return [(name, _("last %(window)s") % {"window": name}) for name in WINDOWS]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Return those that died within the window."""
        length = WINDOWS.get(self.value() or "")
        return queryset.filter(died_at__gte=now() - length) if length else queryset


def _moment(text: str) -> datetime | None:
    """Read a moment from an address; a blank was a plus."""
    try:
        found = parse_datetime(text.replace(" ", "+") if text.count(" ") == 1 else text)
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None
