"""Queues, workers and schedules: what runs where, how well, and what holds it back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.dateparse import parse_datetime
from django.utils.http import urlencode
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from .. import breakers, display, drift, failuregroups, queues, recurring, statistics, workers
from ..clock import now
from ..conf import settings
from ..models import Alert, FailureGroup, Queue, RecoveryRun, RequeueOperation, Worker
from ..policies import Policy, Rate
from ..states import JobState
from . import sparks
from .acts import Act, Button, RecordAdmin
from .alert_admin import address_of
from .failure_group_admin import ReasonForm

if TYPE_CHECKING:
    from ..recurring import Recurrence

_FAILING_PERCENT = 20.0
_SHOWN = 8
# More than anybody reads; those of early warning are among the newest.
_MOST_ALERTS = 300


class PauseForm(forms.Form):
    """Why, and until when."""

    reason = forms.CharField(
        label=_("Reason"), max_length=2_000, help_text=_("Shown beside it while it is paused.")
    )
    until = forms.DateTimeField(
        label=_("Until"),
        required=False,
        help_text=_("Empty: until somebody resumes it."),
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )


class PauseScheduleForm(forms.Form):
    """Why."""

    reason = forms.CharField(label=_("Reason"), max_length=2_000)


class LimitForm(forms.Form):
    """Limits over the whole fleet; empty ones are those of the settings."""

    concurrency = forms.IntegerField(
        label=_("Jobs at once"),
        required=False,
        min_value=1,
        max_value=1_000_000,
        help_text=_("Empty: as in the settings."),
    )
    starts = forms.IntegerField(label=_("Starts"), required=False, min_value=1, max_value=1_000_000)
    window = forms.FloatField(
        label=_("in so many seconds"), required=False, min_value=0.001, max_value=86_400
    )
    reason = forms.CharField(label=_("Reason"), required=False, max_length=2_000)

    def clean(self) -> dict[str, Any]:
        """Require both parts of a rate, or none."""
        values: dict[str, Any] = super().clean() or {}
        if bool(values.get("starts")) != bool(values.get("window")):
            raise forms.ValidationError(
                _("A rate needs both: how many starts, in how many seconds.")
            )
        return values


def _waits(queue: Queue) -> str:
    waiting = statistics.counts([queue.name])[queue.name].get(JobState.WAITING, 0)
    return ngettext("%(count)d job waits in it now.", "%(count)d jobs wait in it now.", waiting) % {
        "count": waiting
    }


def _will_pause(queue: Queue) -> str:
    promise = _t("No job of it starts from now on, in the whole fleet; what runs goes on.")
    return f"{promise} {_waits(queue)}"


def _will_limit(queue: Queue) -> str:
    now_holds = queues.limits(queue.name)
    concurrency = now_holds.concurrency if now_holds.concurrency is not None else "∞"
    rate = now_holds.rate if now_holds.rate is not None else "∞"
    return _t("Now: %(concurrency)s jobs at once, %(rate)s starts.") % {
        "concurrency": concurrency,
        "rate": rate,
    }


def _limit(queue: Queue, values: dict[str, Any], user: Any) -> None:
    rate = Rate(values["starts"], round(values["window"] * 1000)) if values["starts"] else None
    queues.limit(
        queue.name,
        by=user,
        concurrency=values["concurrency"],
        rate=rate,
        reason=values["reason"],
    )


QUEUE_ACTS = (
    Act(
        name="pause",
        permission="pause_queue",
        button=_("Pause"),
        form=PauseForm,
        run=lambda queue, values, user: queues.pause(queue.name, by=user, **values),
        promise=_will_pause,
        done=_("Paused."),
        refusal=lambda queue: _("It is paused already.") if queue.is_paused(now()) else "",
    ),
    Act(
        name="resume",
        permission="pause_queue",
        button=_("Resume"),
        form=ReasonForm,
        run=lambda queue, values, user: queues.resume(queue.name, by=user, reason=values["reason"]),
        promise=lambda queue: f"{_t('Its jobs start again.')} {_waits(queue)}",
        done=_("Resumed."),
        refusal=lambda queue: "" if queue.is_paused(now()) else _("It is not paused."),
    ),
    Act(
        name="close-breaker",
        permission="pause_queue",
        button=_("Close breaker"),
        form=ReasonForm,
        run=lambda queue, values, user: breakers.close(
            queue.name, by=user, reason=values["reason"]
        ),
        promise=lambda queue: f"{_t('Its jobs start again without a probe.')} {_waits(queue)}",
        done=_("The breaker is closed."),
        refusal=lambda queue: (
            _("Its breaker is closed.") if queue.breaker_state == Queue.Breaker.CLOSED else ""
        ),
    ),
    Act(
        name="limit",
        permission="limit_queue",
        button=_("Limits"),
        form=LimitForm,
        run=_limit,
        promise=_will_limit,
        done=_("The limits are changed."),
    ),
)


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
        rows = self.rows(request, _open_alerts())
        return {"rows": rows, "sentence": queues_sentence(rows)}

    def rows(self, request: HttpRequest, open_alerts: Sequence[Alert]) -> list[Row]:
        """Return a row per queue; the number of queries does not grow with them."""
        names = statistics.queue_names()
        rows = {
            row.name: row
            for row in Queue.objects.filter(name__in=names).select_related("paused_by")
        }
        unusual = {
            alert.queue: alert.text for alert in open_alerts if alert.kind in drift.CONDITION.kinds
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


class OverviewAdmin(QueueAdmin):
    """Is it healthy, and if not, where?"""

    template = "queueadmin/overview.html"
    has_verbs = False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Show it to whoever may see queues."""
        return self.may(request, "view_queue")

    def shown(self, request: HttpRequest) -> dict[str, Any]:
        """Return the queues, and the parts of the other pages that matter most."""
        open_alerts = _open_alerts()
        shown_alerts = open_alerts if self.may(request, "view_alert") else []
        rows = self.rows(request, open_alerts)
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
            "fleet": [_shown_worker(worker) for worker in _living()]
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


def _open_alerts() -> list[Alert]:
    return list(Alert.objects.filter(closed_at=None).order_by("-opened_at", "-pk")[:_MOST_ALERTS])


def _overview_sentence(rows: Sequence[Row], alerts: int) -> str:
    """Say first how many alerts are open, then what the matter is with queues, if anything."""
    if not alerts:
        return queues_sentence(rows)
    opened = ngettext("%(count)d alert is open.", "%(count)d alerts are open.", alerts) % {
        "count": alerts
    }
    is_any_troubled = any(row.trouble for row in rows)
    return f"{opened} {queues_sentence(rows)}" if is_any_troubled else opened


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


# --- Workers ----------------------------------------------------------------------------


def _living() -> list[Worker]:
    return list(Worker.objects.select_related("wished_by").order_by("host", "pid")[:200])


@dataclass(frozen=True, slots=True)
class ShownWorker:
    """A worker process with what it runs."""

    worker: Worker
    is_lost: bool
    running: list[tuple[str, str, str, int, datetime | None]]
    memory_mb: int


def _shown_worker(worker: Worker) -> ShownWorker:
    running = []
    for run in worker.running if isinstance(worker.running, list) else []:
        if isinstance(run, dict):
            running.append(
                (
                    str(run.get("job", "")),
                    str(run.get("queue", "")),
                    str(run.get("actor", "")),
                    int(run.get("attempt") or 0),
                    parse_datetime(str(run.get("started_at", ""))),
                )
            )
    return ShownWorker(
        worker,
        worker.seen_at < workers.lost_before(),
        running,
        round(worker.memory_bytes / 2**20),
    )


WORKER_ACTS = (
    Act(
        name="quiet",
        permission="control_worker",
        button=_("Quiet"),
        form=ReasonForm,
        run=lambda worker, values, user: workers.quiet(worker.pk, by=user, reason=values["reason"]),
        promise=lambda worker: _t("It finishes what it runs and starts nothing more."),
        done=_("It starts nothing more."),
        refusal=lambda worker: _("It is quiet already.") if worker.wish else "",
    ),
    Act(
        name="resume",
        permission="control_worker",
        button=_("Resume"),
        form=ReasonForm,
        run=lambda worker, values, user: workers.resume(
            worker.pk, by=user, reason=values["reason"]
        ),
        promise=lambda worker: _t("It starts jobs again."),
        done=_("It starts jobs again."),
        refusal=lambda worker: "" if worker.wish == Worker.Wish.QUIET else _("It is not quiet."),
    ),
    Act(
        name="stop",
        permission="control_worker",
        button=_("Replace"),
        form=ReasonForm,
        run=lambda worker, values, user: workers.stop(worker.pk, by=user, reason=values["reason"]),
        promise=lambda worker: _t(
            "It finishes what it runs and ends; its supervisor starts a fresh process in its place."
        ),
        done=_("It ends as soon as it has finished what it runs."),
        refusal=lambda worker: _("It stops already.") if worker.wish == Worker.Wish.STOP else "",
        is_final=True,
    ),
)


class WorkerAdmin(FleetAdmin):
    """Every worker process and what it runs."""

    acts = WORKER_ACTS
    template = "queueadmin/workers.html"

    def find(self, object_id: str) -> Worker | None:
        """Return the process of that id."""
        return None if "\0" in object_id else Worker.objects.filter(pk=object_id).first()

    def shown(self, request: HttpRequest) -> dict[str, Any]:
        """Return a row per process."""
        fleet = [_shown_worker(worker) for worker in _living()]
        busy = sum(len(shown.running) for shown in fleet if not shown.is_lost)
        alive = [shown for shown in fleet if not shown.is_lost]
        sentence = ngettext(
            "%(count)d worker process is alive, %(busy)d of %(threads)d threads are busy.",
            "%(count)d worker processes are alive, %(busy)d of %(threads)d threads are busy.",
            len(alive),
        ) % {
            "count": len(alive),
            "busy": busy,
            "threads": sum(shown.worker.threads for shown in alive),
        }
        return {
            "fleet": [(shown, self.buttons(request, shown.worker)) for shown in fleet],
            "sentence": sentence,
            "may_see_jobs": self.may(request, "view_job"),
        }


# --- Schedules --------------------------------------------------------------------------


def _run_now(recurrence: "Recurrence", values: dict[str, Any], user: Any) -> str:
    return recurring.run_now(recurrence.name, by=user, reason=values["reason"])


SCHEDULE_ACTS = (
    Act(
        name="run",
        permission="run_schedule",
        button=_("Run now"),
        form=ReasonForm,
        run=_run_now,
        promise=lambda recurrence: (
            _t("Its job %(actor)s is enqueued at once, beside its usual times.")
            % {"actor": recurrence.schedule.actor}
        ),
        done=_("Enqueued."),
    ),
    Act(
        name="pause",
        permission="pause_schedule",
        button=_("Pause"),
        form=PauseScheduleForm,
        run=lambda recurrence, values, user: recurring.pause(recurrence.name, by=user, **values),
        promise=lambda recurrence: _t(
            "Its times are left out until somebody resumes it; they are not made up for."
        ),
        done=_("Paused."),
        refusal=lambda recurrence: _("It is paused already.") if recurrence.is_paused else "",
    ),
    Act(
        name="resume",
        permission="pause_schedule",
        button=_("Resume"),
        form=ReasonForm,
        run=lambda recurrence, values, user: recurring.resume(
            recurrence.name, by=user, reason=values["reason"]
        ),
        promise=lambda recurrence: _t("It runs again from its next time on."),
        done=_("Resumed."),
        refusal=lambda recurrence: "" if recurrence.is_paused else _("It is not paused."),
    ),
)


class ScheduleAdmin(FleetAdmin):
    """What recurs: when, how it went last, and the verbs on it."""

    acts = SCHEDULE_ACTS
    template = "queueadmin/schedules.html"

    def find(self, object_id: str) -> "Recurrence | None":
        """Return the schedule of that name."""
        return next((found for found in recurring.listed() if found.name == object_id), None)

    def buttons(self, request: HttpRequest, record: Any) -> dict[str, Button]:
        """Return its acts; it is no row of the database."""
        return {
            act.name: Button(
                act,
                self.address("do", quote(record.name), act.name),
                act.refusal(record)
                if self.may(request, act.permission)
                else _("You lack the permission for this."),
            )
            for act in self.acts
        }

    def shown(self, request: HttpRequest) -> dict[str, Any]:
        """Return a row per schedule."""
        found = recurring.listed()
        late = [recurrence for recurrence in found if recurrence.is_late]
        if late:
            sentence = _t("The scheduler is silent: %(name)s was due %(when)s.") % {
                "name": display.plain(late[0].name),
                "when": display.relative(late[0].next_at or now()),
            }
        elif found and all(recurrence.next_at is None for recurrence in found):
            sentence = _t("No scheduler has run yet; start one with “manage.py runscheduler”.")
        else:
            sentence = ngettext("%(count)d schedule.", "%(count)d schedules.", len(found)) % {
                "count": len(found)
            }
        return {
            "recurrences": [
                (recurrence, self.buttons(request, recurrence)) for recurrence in found
            ],
            "sentence": sentence,
            "may_see_jobs": self.may(request, "view_job"),
        }
