"""The overview: is it healthy, and if not, where?"""

from collections.abc import Sequence
from typing import Any

from django.contrib.auth.models import Permission
from django.http import HttpRequest
from django.utils.translation import ngettext

from .. import failuregroups, recurring
from ..clock import now
from ..models import FailureGroup, RecoveryRun, RequeueOperation
from .alert_admin import address_of, open_alerts
from .queue_admin import QueueAdmin, Row, queues_sentence
from .worker_admin import living, shown_worker

_SHOWN = 8


class OverviewAdmin(QueueAdmin):
    """Is it healthy, and if not, where?"""

    template = "queueadmin/overview.html"
    has_verbs = False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Show it to whoever may see queues."""
        return self.may(request, "view_queue")

    def shown(self, request: HttpRequest) -> dict[str, Any]:
        """Return the queues, and the parts of the other pages that matter most."""
        alerts = open_alerts()
        shown_alerts = alerts if self.may(request, "view_alert") else []
        rows = self.rows(request, alerts)
        groups = []
        if self.may(request, "view_failuregroup"):
            needs = FailureGroup.objects.filter(status__in=FailureGroup.OPEN).defer("resolution")
            groups = list(needs.order_by("-last_seen_at")[:_SHOWN])
        matrix = failuregroups.matrix(groups)
        may_see_schedules = self.may(request, "view_schedulecontrol")
        return {
            "rows": rows,
            "sentence": _overview_sentence(rows, len(shown_alerts)),
            "alerts": [
                (alert, address_of(alert, self.admin_site.name))
                for alert in shown_alerts[: _SHOWN + 1]
            ],
            "at": now(),
            "is_live": True,
            "groups": [(group, matrix[group.pk][0], matrix[group.pk][2]) for group in groups],
            "may_see_groups": self.may(request, "view_failuregroup"),
            "fleet": [shown_worker(worker) for worker in living()]
            if self.may(request, "view_worker")
            else None,
            "recovery": RecoveryRun.objects.order_by("-started_at").first()
            if self.may(request, "view_recoveryrun")
            else None,
            "recurrences": recurring.listed() if may_see_schedules else None,
            "operations": list(
                RequeueOperation.objects.exclude(status__in=RequeueOperation.ENDED)[:_SHOWN]
            )
            if self.may(request, "view_requeueoperation")
            else [],
            "permissions": self._permissions(request),
        }

    def _permissions(self, request: HttpRequest) -> list[tuple[str, bool]]:
        """Return every permission of the console, and whether the reader has it."""
        rows = Permission.objects.filter(content_type__app_label="queueadmin").order_by("name")
        return [
            (name, self.may(request, codename))
            for name, codename in rows.values_list("name", "codename")
        ]


def _overview_sentence(rows: Sequence[Row], alerts: int) -> str:
    """Say first how many alerts are open, then what the matter is with queues, if anything."""
    if not alerts:
        return queues_sentence(rows)
    opened = ngettext("%(count)d alert is open.", "%(count)d alerts are open.", alerts) % {
        "count": alerts
    }
    is_any_troubled = any(row.trouble for row in rows)
    return f"{opened} {queues_sentence(rows)}" if is_any_troubled else opened
