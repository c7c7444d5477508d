"""Schedules: what recurs, when next, how it went, and the verbs on it."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.admin.utils import quote
from django.http import HttpRequest
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from .. import display, recurring
from ..clock import now
from .acts import Act, Button
from .failure_group_admin import ReasonForm
from .fleet_page import FleetAdmin

if TYPE_CHECKING:
    from ..recurring import Recurrence


class PauseScheduleForm(forms.Form):
    """Why."""

    reason = forms.CharField(label=_("Reason"), max_length=2_000)


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
