"""Lists as files: what the list shows under its filters, safe to open in a spreadsheet."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path, reverse
from django.urls.resolvers import URLPattern

from .. import audit, display
from .lists import ConsoleAdmin

#: Rows of one file; whoever needs more narrows the list and exports in parts.
LIMIT = 10_000
FORMATS = ("csv", "json")

#: Head of a column, and what stands in it.
Column = tuple[str, Callable[[Any], object]]

# A spreadsheet runs a cell that begins like this as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "＝", "＋", "－", "＠")


class ExportingAdmin(ConsoleAdmin):
    """A list that can be had as a file, as it is filtered."""

    change_list_template = "queueadmin/exported_list.html"
    #: What a file has of each row.
    columns: Sequence[Column] = ()
    #: What the rows are called in the audit trail, and in the name of the file.
    exported_as = ""

    def get_urls(self) -> list[URLPattern]:
        """Add the address of the list as a file."""
        view = self.admin_site.admin_view(self.export_view)
        name = f"queueadmin_{self.opts.model_name}_export"
        return [path("export/<str:form>/", view, name=name), *super().get_urls()]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show where the files are."""
        name = f"admin:queueadmin_{self.opts.model_name}_export"
        urls = {
            form: reverse(name, args=[form], current_app=self.admin_site.name) for form in FORMATS
        }
        return super().changelist_view(request, {"export_urls": urls, **(extra_context or {})})

    def export_view(self, request: HttpRequest, form: str) -> StreamingHttpResponse:
        """Answer with the list under its filters as a file; that it was taken is audited."""
        if form not in FORMATS:
            raise Http404
        if not self.has_view_permission(request):
            raise PermissionDenied
        rows = self.get_changelist_instance(request).queryset[:LIMIT]
        user: Any = request.user
        audit.record(
            "export", self.exported_as, [""], by=user, filters=request.GET.urlencode()[:500]
        )
        return response(rows, self.columns, name=self.exported_as.replace(" ", "-"), form=form)


def response(
    rows: Iterable[Any], columns: Sequence[Column], *, name: str, form: str
) -> StreamingHttpResponse:
    """Return rows as a file to save, one row at a time.

    Args:
        rows: what is written, at most LIMIT of it.
        columns: what of each row.
        name: the file's name without its ending.
        form: one of FORMATS.
    """
    lines = _csv(rows, columns) if form == "csv" else _json(rows, columns)
    kinds = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
    return StreamingHttpResponse(
        lines,
        content_type=kinds[form],
        headers={
            "Content-Disposition": f'attachment; filename="{name}.{form}"',
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        },
    )


def harmless(value: object) -> object:
    """Return a value that a spreadsheet shows instead of running it."""
    if value is None or isinstance(value, int | float):
        return value
    text = display.plain(value)
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


class _Echo:
    """A file that hands back what is written to it."""

    def write(self, line: str) -> str:
        return line


def _csv(rows: Iterable[Any], columns: Sequence[Column]) -> Iterator[str]:
    writer: Any = csv.writer(_Echo())
    # The mark tells spreadsheets that it is UTF-8.
    yield "\ufeff" + writer.writerow([head for head, _read in columns])
    for row in rows:
        yield writer.writerow([harmless(read(row)) for _head, read in columns])


def _json(rows: Iterable[Any], columns: Sequence[Column]) -> Iterator[str]:
    separator = "[\n"
    for row in rows:
        values = {head: read(row) for head, read in columns}
        yield separator + json.dumps(values, default=str)
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"
