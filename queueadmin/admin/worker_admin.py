"""Worker processes: which are there, what each runs, and the verbs on them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.http import HttpRequest
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from .. import workers
from ..models import Worker
from .acts import Act
from .failure_group_admin import ReasonForm
from .fleet_page import FleetAdmin


def living() -> list[Worker]:
    """Return the processes of the registry, those that have fallen silent too."""
    return list(Worker.objects.select_related("wished_by").order_by("host", "pid")[:200])


@dataclass(frozen=True, slots=True)
class ShownWorker:
    """A worker process with what it runs."""

    worker: Worker
    is_lost: bool
    running: list[tuple[str, str, str, int, datetime | None]]
    memory_mb: int


def shown_worker(worker: Worker) -> ShownWorker:
    """Read what a process says of itself, which may be anything."""
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
        fleet = [shown_worker(worker) for worker in living()]
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
