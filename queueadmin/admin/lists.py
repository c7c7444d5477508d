"""Change lists that stay fast on a million rows: tabs with counts, bounded paging."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.admin import helpers
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.paginator import Paginator
from django.db import connection
from django.db.models import F, QuerySet, Value
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from .. import display
from ..resolver import get_resolver

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise

    # Django's class takes its type argument only in the eyes of the type checker.
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin

#: Rows that are counted and paged through; beyond it "more than" is said.
COUNT_LIMIT = 10_000
#: Newest rows among which the values of a filter are looked for.
SEEN_LIMIT = 2_000


@dataclass(frozen=True, slots=True)
class Tab:
    """One tab of a list with the number of rows behind it."""

    label: "_StrPromise | str"
    url: str
    count: int
    is_selected: bool

    @property
    def count_text(self) -> str:
        """The number, or a lower bound of it."""
        return f"{COUNT_LIMIT:,}+" if self.count > COUNT_LIMIT else f"{self.count:,}"


def bounded_count(rows: "QuerySet[Any] | Any", *, more: int = 0) -> int:
    """Count rows, one more than COUNT_LIMIT (and `more`) where there are more.

    Of PostgreSQL nothing but the number is asked, so that an index alone may answer; SQLite
    has no SELECT of no column.
    """
    column = Value(1) if connection.vendor == "postgresql" else F("pk")
    limited = rows.order_by().annotate(counted=column).values("counted")[: COUNT_LIMIT + 1 + more]
    return int(limited.count())


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """A paginator that never counts more rows than anybody pages through."""

    @cached_property
    def counted(self) -> int:
        """Rows counted, one more than the limit where there are more."""
        known: int | None = getattr(self.object_list, "known_count", None)
        return bounded_count(self.object_list) if known is None else known

    @cached_property
    def count(self) -> int:
        """Rows that can be paged through."""
        return min(self.counted, COUNT_LIMIT)

    @property
    def is_bounded(self) -> bool:
        """Whether there are more rows than can be paged through."""
        return self.counted > COUNT_LIMIT


class TabFilter(admin.SimpleListFilter):
    """A filter shown as tabs above the list; `default` holds when none is chosen."""

    is_tabs = True
    default: str
    parameter_name: str

    def choose(self, rows: "QuerySet[Any]", tab: str) -> "QuerySet[Any]":
        """Return the rows behind `tab`."""
        raise NotImplementedError

    def count(self, rows: "QuerySet[Any]", tab: str) -> int:
        """Count the rows behind `tab`, as `bounded_count` does."""
        return bounded_count(self.choose(rows, tab))

    def selected(self) -> str:
        """Return the tab that is open; an unknown one is the default."""
        known = {str(value) for value, _label in self.lookup_choices}
        value = self.value()
        return value if value in known else self.default

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Return the rows behind the open tab."""
        return self.choose(queryset, self.selected())

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """Return nothing for the side bar; `ConsoleChangeList.tabs` has them."""
        return iter(())


class SeenFilter(admin.SimpleListFilter):
    """Choose among the values of a field that the newest rows have.

    A DISTINCT over a large table would read all of it on every page.
    """

    parameter_name: str
    newest: tuple[str, ...] = ("-enqueued_at",)

    def recent(self, model_admin: Any) -> "QuerySet[Any]":
        """Return the rows to look at, newest first."""
        return model_admin.model._default_manager.order_by(*self.newest)  # type: ignore[no-any-return]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the values seen lately, and the chosen one in any case."""
        cache: dict[str, set[str]] = request.__dict__.setdefault("_queueadmin_seen", {})
        if self.parameter_name not in cache:
            rows = self.recent(model_admin).values_list(self.parameter_name, flat=True)
            cache[self.parameter_name] = set(rows[:SEEN_LIMIT])
        seen = cache[self.parameter_name]
        chosen = self.value()
        return [
            (value, display.plain(value))
            for value in sorted(seen | ({chosen} if chosen else set()))
        ]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Return the rows with the chosen value."""
        chosen = self.value()
        if not chosen:
            return queryset
        # No stored text has NUL, and PostgreSQL refuses the very question.
        if "\0" in chosen:
            return queryset.none()
        return queryset.filter(**{self.parameter_name: chosen})


class ConsoleChangeList(ChangeList):
    """A change list with tabs and with bounded numbers."""

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        self.title = capfirst(str(self.opts.verbose_name_plural))

    def get_results(self, request: HttpRequest) -> None:
        """Read the page's rows, and let the page add what it shows beside them."""
        self.tabs = self._tabs(request)
        # Tabs stand above the list; for them alone there is no bar beside it.
        self.has_filters = any(not isinstance(spec, TabFilter) for spec in self.filter_specs)
        for tab in self.tabs:
            if tab.is_selected:
                # The open tab is the list: nobody counts it twice.
                self.queryset.known_count = tab.count
        super().get_results(request)
        rows = list(self.result_list)
        self.model_admin.prepare(rows)  # type: ignore[attr-defined]
        self.result_list: Any = rows

    def _tabs(self, request: HttpRequest) -> list[Tab]:
        """Count each tab under the filters and the search that are on."""
        specs = [spec for spec in self.filter_specs if isinstance(spec, TabFilter)]
        if not specs:
            return []
        spec = specs[0]
        rows = self.get_queryset(request, exclude_parameters=spec.expected_parameters())
        return [
            Tab(
                label,
                self.get_query_string({spec.parameter_name: value}, [PAGE_VAR]),
                spec.count(rows, value),
                value == spec.selected(),
            )
            for value, label in spec.lookup_choices
        ]

    @property
    def is_filtered(self) -> bool:
        """Whether something else than a tab narrows the list."""
        tabs = {spec.parameter_name for spec in self.filter_specs if isinstance(spec, TabFilter)}
        return bool(self.query) or bool(set(self.get_filters_params()) - tabs)

    @property
    def first_shown(self) -> int:
        """Number of the first row on this page, counted from 1."""
        return (self.page_num - 1) * self.list_per_page + 1 if self.result_count else 0

    @property
    def last_shown(self) -> int:
        """Number of the last row on this page."""
        return self.first_shown + len(self.result_list) - 1 if self.result_count else 0

    @property
    def previous_url(self) -> str:
        """Address of the page before, empty on the first."""
        return self.get_query_string({PAGE_VAR: self.page_num - 1}) if self.page_num > 1 else ""

    @property
    def next_url(self) -> str:
        """Address of the page after, empty on the last."""
        if self.page_num >= self.paginator.num_pages:
            return ""
        return self.get_query_string({PAGE_VAR: self.page_num + 1})


class ConsoleAdmin(ModelAdmin):
    """A page of the console: nobody adds, edits or deletes records by form."""

    change_list_template = "queueadmin/change_list.html"
    list_per_page = 50
    empty_value_display = ""
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = BoundedPaginator
    #: Whether its rows lead anywhere.
    has_links = True
    #: What an empty list says would appear in it, and how to make that happen.
    empty_text: "_StrPromise | str" = _("Nothing here yet.")

    class Media:
        css = {"all": ("queueadmin/console.css",)}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list with tabs."""
        return ConsoleChangeList

    def action_checkbox(self, obj: Any) -> SafeString:
        """Offer a row for an action; the stock box repeats foreign texts as they are."""
        label = _("Select %(record)s") % {"record": display.plain(obj)}
        attributes = {"class": "action-select", "aria-label": label}
        box = forms.CheckboxInput(attributes, check_test=lambda value: False)
        return box.render(helpers.ACTION_CHECKBOX_NAME, str(obj.pk))

    @property
    def has_selection(self) -> bool:
        """Whether rows can be chosen for an action."""
        return bool(self.actions)

    def prepare(self, rows: Sequence[Any]) -> None:
        """Add to the rows of a list what needs queries of its own."""

    def may(self, request: HttpRequest, verb: str) -> bool:
        """Return whether the user may do `verb`, as the host's resolver says."""
        return get_resolver().may(request.user, verb)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Ask the host's resolver."""
        return self.may(request, f"view_{self.opts.model_name}")

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Show the entry to whoever may see the list."""
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody adds records by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody edits records by form; verbs have their own permissions."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody deletes records."""
        return False
