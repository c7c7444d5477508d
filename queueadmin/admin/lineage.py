"""Whom a job comes from and what comes of it: parent, children, pipeline and group."""

from dataclasses import dataclass, field

from django.db.models import Count

from ..models import Job
from ..states import FINISHED, JobState

#: No page shows more of them.
SHOWN = 50


@dataclass(frozen=True, slots=True)
class Lineage:
    """A job's family, bounded, in three queries."""

    parent: Job | None = None
    children: list[Job] = field(default_factory=list)
    has_more_children: bool = False
    #: Actors of the pipeline's coming steps; they become jobs one after the other.
    coming: list[str] = field(default_factory=list)
    #: Jobs of the same group per state, this one included.
    group: list[tuple[str, int]] = field(default_factory=list)
    group_size: int = 0
    group_done: int = 0

    def __bool__(self) -> bool:
        return bool(self.parent or self.children or self.coming or self.group)


def of(job: Job) -> Lineage:
    """Return the family of a job."""
    children = list(Job.objects.for_list().filter(parent=job.pk)[: SHOWN + 1])
    states: list[tuple[str, int]] = []
    if job.group:
        members = Job.objects.filter(group=job.group).order_by()
        states = list(members.values_list("state").annotate(Count("pk")))
    return Lineage(
        parent=Job.objects.for_list().filter(pk=job.parent).first() if job.parent else None,
        children=children[:SHOWN],
        has_more_children=len(children) > SHOWN,
        coming=_coming(job) if job.state not in FINISHED else [],
        group=sorted(states),
        group_size=sum(number for _, number in states),
        group_done=sum(number for state, number in states if state == JobState.COMPLETED),
    )


def _coming(job: Job) -> list[str]:
    """Return the actors of the messages that wait, one inside the other, in the options."""
    found: list[str] = []
    try:
        message = job.payload
    except RecursionError:
        return []
    while len(found) < SHOWN:
        options = message.get("options") if isinstance(message, dict) else None
        message = options.get("pipe_target") if isinstance(options, dict) else None
        if not isinstance(message, dict):
            break
        found.append(str(message.get("actor_name", "?")))
    return found
