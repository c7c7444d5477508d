"""What can be done to jobs from a page: each verb's form, words and use case."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django import forms
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from .. import jobs
from ..clock import now
from ..deadletters import BulkResult
from ..jobs import CancelResult
from ..models import Job
from ..states import JobState
from .verbs import REASON_LENGTH

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.utils.functional import _StrPromise


class ReasonForm(forms.Form):
    """Why, if there is anything to say."""

    reason = forms.CharField(
        label=_("Reason"),
        required=False,
        max_length=REASON_LENGTH,
        help_text=_("Optional, kept in the audit trail."),
        widget=forms.Textarea(attrs={"rows": 3}),
    )


class RescheduleForm(ReasonForm):
    """When the jobs are due."""

    to = forms.SplitDateTimeField(
        label=_("Due"),
        help_text=_("Date and time in your time zone."),
        widget=forms.SplitDateTimeWidget(
            date_format="%Y-%m-%d",
            time_format="%H:%M",
            date_attrs={"type": "date", "aria-label": _("Date")},  # type: ignore[dict-item]
            time_attrs={"type": "time", "aria-label": _("Time")},  # type: ignore[dict-item]
        ),
        require_all_fields=True,
    )
    field_order = ("to", "reason")

    def clean_to(self) -> datetime:
        """Refuse a time that has passed: to run jobs now is another verb."""
        to: datetime = self.cleaned_data["to"]
        if to <= now():
            raise forms.ValidationError(_("This time has passed. To run jobs now, choose that."))
        if to - now() > jobs.FURTHEST:
            raise forms.ValidationError(_("This is more than 10 years away."))
        return to


@dataclass(frozen=True, slots=True)
class JobVerb:
    """One verb on jobs."""

    name: str
    permission: str
    title: "_StrPromise"
    button: "_StrPromise"
    form: type[forms.Form]
    run: "Callable[[list[str], dict[str, Any], User], BulkResult]"
    promise: Callable[[int], str]
    report: Callable[[int], str]
    #: Name of the use case whose rules decide what is eligible.
    use_case: str
    is_final: bool = False

    def refusal(self, job: Job, is_permitted: bool) -> "_StrPromise | str":
        """Return why the verb cannot be done to this job now; empty if it can."""
        if not is_permitted:
            return _("You lack the permission for this.")
        if job.is_cancelling:
            return _("A cancel was requested.")
        if job.state in jobs.ELIGIBLE[self.use_case]:
            return ""
        return _REFUSALS.get(JobState(job.state), "") if job.state in JobState.values else ""


_REFUSALS = {
    JobState.WAITING: _("It is due already."),
    JobState.ACTIVE: _("It is running."),
    JobState.COMPLETED: _("It is completed."),
    JobState.DEAD: _("It failed for good; its dead letter says what can be done."),
    JobState.CANCELLED: _("It is cancelled."),
}


def _cancel(ids: list[str], values: dict[str, Any], user: "User") -> CancelResult:
    return jobs.cancel(ids, by=user, reason=values["reason"])


def _reschedule(ids: list[str], values: dict[str, Any], user: "User") -> BulkResult:
    return jobs.reschedule(ids, values["to"], by=user, reason=values["reason"])


def _retry(ids: list[str], values: dict[str, Any], user: "User") -> BulkResult:
    return jobs.retry(ids, by=user, reason=values["reason"])


def _will_cancel(count: int) -> str:
    return ngettext(
        "%(count)d job is cancelled. If a worker runs it, it is interrupted where that is possible.",
        "%(count)d jobs are cancelled. Those that run are interrupted where that is possible.",
        count,
    ) % {"count": count}


def _cancelled(count: int) -> str:
    return ngettext("Cancelled %(count)d job.", "Cancelled %(count)d jobs.", count) % {
        "count": count
    }


def stopping(count: int) -> str:
    """Say how many jobs are in a worker's hands and not certain to be cancelled."""
    return ngettext(
        "Requested the cancel of %(count)d job; it is in a worker's hands and ends as "
        "cancelled unless it completes before.",
        "Requested the cancel of %(count)d jobs; they are in workers' hands and end as "
        "cancelled unless they complete before.",
        count,
    ) % {"count": count}


def _will_reschedule(count: int) -> str:
    return ngettext(
        "%(count)d job becomes due at another time.",
        "%(count)d jobs become due at another time.",
        count,
    ) % {"count": count}


def _rescheduled(count: int) -> str:
    return ngettext("Rescheduled %(count)d job.", "Rescheduled %(count)d jobs.", count) % {
        "count": count
    }


def _will_retry(count: int) -> str:
    return ngettext(
        "%(count)d job becomes due now; its attempts so far count.",
        "%(count)d jobs become due now; their attempts so far count.",
        count,
    ) % {"count": count}


def _retried(count: int) -> str:
    return ngettext("%(count)d job is due now.", "%(count)d jobs are due now.", count) % {
        "count": count
    }


JOB_VERBS = {
    verb.name: verb
    for verb in (
        JobVerb(
            "run-now",
            "retry_job",
            _("Run now"),
            _("Run now"),
            ReasonForm,
            _retry,
            _will_retry,
            _retried,
            use_case="retry",
        ),
        JobVerb(
            "reschedule",
            "reschedule_job",
            _("Reschedule"),
            _("Reschedule"),
            RescheduleForm,
            _reschedule,
            _will_reschedule,
            _rescheduled,
            use_case="reschedule",
        ),
        JobVerb(
            "cancel",
            "cancel_job",
            _("Cancel jobs"),
            _("Cancel"),
            ReasonForm,
            _cancel,
            _will_cancel,
            _cancelled,
            use_case="cancel",
            is_final=True,
        ),
    )
}
