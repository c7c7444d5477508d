"""Queues: what runs where, how well, and what holds it back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from .. import display, drift, queues, statistics, workers
from ..clock import now
from ..conf import settings
from ..models import Alert, Queue
from ..policies import Policy
from ..states import JobState
from . import sparks
from .acts import Button
from .alert_admin import open_alerts
from .fleet_page import FleetAdmin
from .queue_verbs import QUEUE_ACTS

_FAILING_PERCENT = 20.0


@dataclass(frozen=True, slots=True)
class Badge:
    """A word on what holds a queue back, and who says so."""

    mark: Any
    why: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One queue as the tables show it."""

    name: str
    numbers: statistics.QueueNumbers
    badges: list[Badge]
    links: list[tuple[str, str, int, bool]]
    workers: int
    per_minute: float
    spark: tuple[str, str] | None
    buttons: dict[str, Button]
    policy: Policy | None
    limits: queues.Limits
    trouble: str
    is_paused: bool
    is_broken: bool


class QueueAdmin(FleetAdmin):
    """Every queue with its limits, and the verbs on it."""

    acts = QUEUE_ACTS
    template = "queueadmin/queues.html"
    #: Whether the rows show buttons.
    has_verbs = True

    def find(self, object_id: str) -> Queue | None:
        """Return the queue of that name, also where nothing was set for it yet."""
        if "\0" in object_id or object_id not in statistics.queue_names():
            return None
        return Queue.objects.filter(name=object_id).first() or Queue(name=object_id)

    def shown(self, request: HttpRequest) -> dict[str, Any]:
        """Return a row per queue."""
        rows = self.rows(request, open_alerts())
        return {"rows": rows, "sentence": queues_sentence(rows)}

    def rows(self, request: HttpRequest, alerts: Sequence[Alert]) -> list[Row]:
        """Return a row per queue; the number of queries does not grow with them."""
        names = statistics.queue_names()
        rows = {
            row.name: row
            for row in Queue.objects.filter(name__in=names).select_related("paused_by")
        }
        unusual = {
            alert.queue: alert.text for alert in alerts if alert.kind in drift.CONDITION.kinds
        }
        fleet = list(workers.alive().values_list("queues", flat=True)[:1_000])
        return [
            self._row(
                request,
                numbers,
                rows.get(numbers.name) or Queue(name=numbers.name),
                fleet,
                unusual.get(numbers.name, ""),
            )
            for numbers in statistics.overview(names)
        ]

    def _row(
        self,
        request: HttpRequest,
        numbers: statistics.QueueNumbers,
        queue: Queue,
        fleet: list[Any],
        unusual: str,
    ) -> Row:
        name = numbers.name
        consumers = sum(name in consumed for consumed in fleet if isinstance(consumed, list))
        badges = _badges(queue)
        if unusual:
            badges.append(
                Badge(display.badge("unusual", _("unusual")), display.excerpt(unusual, 300))
            )
        return Row(
            name=name,
            numbers=numbers,
            badges=badges,
            links=[
                (
                    state.value,
                    self.link("job", state=state.value, queue=name),
                    min(numbers.counts.get(state, 0), statistics.limit_of(state)),
                    numbers.counts.get(state, 0) > statistics.limit_of(state),
                )
                for state in statistics.SHOWN_STATES
            ],
            workers=consumers,
            per_minute=numbers.flow.completed / 60,
            spark=sparks.bars((point.completed, point.failed) for point in numbers.line),
            buttons=self.buttons(request, queue) if self.has_verbs else {},
            policy=settings.policy(name),
            limits=queues.limits_of(queue),
            trouble=_trouble(queue, numbers, consumers, is_unusual=bool(unusual)),
            is_paused=queue.is_paused(now()),
            is_broken=queue.breaker_state != Queue.Breaker.CLOSED,
        )


def queues_sentence(rows: Sequence[Row]) -> str:
    """Say how many queues need attention, and what the matter is with the first."""
    troubled = [row for row in rows if row.trouble]
    if not rows:
        return _t("No queue is known yet; declare an actor, or name queues in the settings.")
    if not troubled:
        return ngettext(
            "%(count)d queue, and it is well.", "%(count)d queues, and all are well.", len(rows)
        ) % {"count": len(rows)}
    first = f"{display.plain(troubled[0].name)} ({troubled[0].trouble})"
    return ngettext(
        "%(bad)d of %(count)d queues needs attention: %(first)s.",
        "%(bad)d of %(count)d queues need attention, first of all %(first)s.",
        len(troubled),
    ) % {"bad": len(troubled), "count": len(rows), "first": first}


def _trouble(
    queue: Queue, numbers: statistics.QueueNumbers, consumers: int, *, is_unusual: bool
) -> str:
    """Return what is the matter with a queue in a few words; empty if it is well."""
    waiting = numbers.counts.get(JobState.WAITING, 0)
    failed = numbers.flow.failed_percent
    if queue.breaker_state != Queue.Breaker.CLOSED:
        return _t("breaker %(state)s") % {"state": queue.get_breaker_state_display()}
    if waiting and queue.is_paused(now()):
        return _t("paused, %(count)s waiting") % {"count": waiting}
    if waiting and not consumers:
        return _t("%(count)s waiting and no worker consumes it") % {"count": waiting}
    if failed is not None and failed >= _FAILING_PERCENT and numbers.flow.attempts >= 10:
        return _t("%(share).0f %% of attempts fail") % {"share": failed}
    if is_unusual:
        return _t("not as usual for this hour")
    return ""


def _badges(queue: Queue) -> list[Badge]:
    badges = []
    if queue.is_paused(now()):
        who = queue.paused_by.get_username() if queue.paused_by else _t("a program")
        until = f" → {display.exact(queue.paused_until)}" if queue.paused_until else ""
        why = f"{who}: {display.excerpt(queue.pause_reason)}{until}"
        badges.append(Badge(display.badge("paused", _("paused")), why))
    if queue.breaker_state != Queue.Breaker.CLOSED:
        label = _t("breaker %(state)s") % {"state": queue.get_breaker_state_display()}
        badges.append(Badge(display.badge("failed", label), display.excerpt(queue.breaker_cause)))
    if queue.concurrency or queue.rate_limit:
        badges.append(Badge(display.badge("limited", _("limited")), _t("changed in the console")))
    return badges
