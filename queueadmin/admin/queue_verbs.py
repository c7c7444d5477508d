"""Pause, resume and limit a queue: what each asks for, and what it says before it is done."""

from typing import Any

from django import forms
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from .. import breakers, queues, statistics
from ..clock import now
from ..models import Queue
from ..policies import Rate
from ..states import JobState
from .acts import Act
from .failure_group_admin import ReasonForm


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
    return ngettext("%(count)d job waits now.", "%(count)d jobs wait now.", waiting) % {
        "count": waiting
    }


def _will_pause(queue: Queue) -> str:
    promise = _t(
        "No worker starts a job of this queue until it is resumed; what runs goes on to its end."
    )
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
