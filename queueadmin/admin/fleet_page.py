"""A page that shows all queues, workers or schedules at once, in place of a change list."""

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import urlencode

from .acts import RecordAdmin


class FleetAdmin(RecordAdmin):
    """A page that shows everything of its kind at once."""

    template = ""

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the page in place of a change list."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {
            **self.page_context(request, self.opts.verbose_name_plural),
            **self.shown(request),
            "is_list": True,
            **(extra_context or {}),
        }
        return TemplateResponse(request, self.template, context)

    def shown(self, request: HttpRequest) -> dict[str, Any]:
        """Return what the page shows."""
        raise NotImplementedError

    def after(self, request: HttpRequest, record: Any) -> str:
        """Go back to the whole page; records have none of their own."""
        return self.address("changelist")

    def link(self, model: str, **query: Any) -> str:
        """Return the address of a list of this site with filters."""
        name = f"admin:queueadmin_{model}_changelist"
        return f"{reverse(name, current_app=self.admin_site.name)}?{urlencode(query)}"
