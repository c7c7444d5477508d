"""Queues: what runs where, how well, and what holds it back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
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
    #: How bad the trouble is; 0 for the worst, and the last for none.
    rank: int
    #: What is usual for this hour, where it is known and was asked for.
    usual: str
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
        rows = self.rows(request, open_alerts(), usual=drift.usual_by_queue())
        return {"rows": rows, "sentence": queues_sentence(rows)}

    def rows(
        self,
        request: HttpRequest,
        alerts: Sequence[Alert],
        *,
        usual: Mapping[str, str] = MappingProxyType({}),
    ) -> list[Row]:
        """Return a row per queue, the worst first; the number of queries is the same for any."""
        names = statistics.queue_names()
        rows = {
            row.name: row
            for row in Queue.objects.filter(name__in=names).select_related("paused_by")
        }
        unusual = {
            alert.queue: alert.text for alert in alerts if alert.kind in drift.CONDITION.kinds
        }
        fleet = list(workers.alive().values_list("queues", flat=True)[:1_000])
        found = [
            self._row(
                request,
                numbers,
                rows.get(numbers.name) or Queue(name=numbers.name),
                fleet,
                unusual.get(numbers.name, ""),
                usual.get(numbers.name, ""),
            )
            for numbers in statistics.overview(names)
        ]
        # Those of the same rank stay in the order of their names: nothing moves by itself
        # unless a trouble begins or ends.
        return sorted(found, key=lambda row: row.rank)

    def _row(
        self,
        request: HttpRequest,
        numbers: statistics.QueueNumbers,
        queue: Queue,
        fleet: list[Any],
        unusual: str,
        usual: str,
    ) -> Row:
        name = numbers.name
        consumers = sum(name in consumed for consumed in fleet if isinstance(consumed, list))
        badges = _badges(queue)
        rank, trouble = _trouble(queue, numbers, consumers, is_unusual=bool(unusual))
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
            trouble=trouble,
            rank=rank,
            # What is unusual says so itself.
            usual="" if unusual else usual,
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
) -> tuple[int, str]:
    """Return how bad it stands with a queue, 0 for the worst, and why in a few words."""
    waiting = numbers.counts.get(JobState.WAITING, 0)
    failed = numbers.flow.failed_percent
    troubles = (
        (
            queue.breaker_state != Queue.Breaker.CLOSED,
            _t("breaker %(state)s") % {"state": queue.get_breaker_state_display()},
        ),
        (
            waiting and not consumers and not queue.is_paused(now()),
            _t("%(count)s waiting and no worker consumes it") % {"count": waiting},
        ),
        (
            failed is not None and failed >= _FAILING_PERCENT and numbers.flow.attempts >= 10,
            _t("%(share).0f %% of attempts fail") % {"share": failed or 0},
        ),
        (
            waiting and queue.is_paused(now()),
            _t("paused, %(count)s waiting") % {"count": waiting},
        ),
        (is_unusual, _t("not as usual for this hour")),
    )
    for rank, (is_so, words) in enumerate(troubles):
        if is_so:
            return rank, words
    return len(troubles), ""


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
        # Which of its limits, the list of queues says.
        badges.append(Badge(display.badge("limited", _("limited"))))
    return badges
