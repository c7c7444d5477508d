"""One sentence per record that answers: where is it, what happened, what comes next?"""

from datetime import datetime

from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy

from ..clock import now
from ..display import excerpt, relative, span
from ..models import DeadLetter, Job
from ..states import DeadLetterStatus, DeathCause, JobState


def about_job(job: Job, upcoming: list[datetime]) -> str:
    """Say where a job is and what comes next.

    Args:
        job: with its error texts.
        upcoming: when the coming attempts are due.
    """
    facts = {
        "queue": job.queue,
        "attempt": job.attempts,
        "next": job.attempts + 1,
        "max": job.max_attempts if job.max_attempts is not None else "∞",
        "due": relative(job.due_at),
        "error": _error(job.error_class, job.error_message),
        "worker": job.worker or _("a worker"),
        "when": relative(job.finished_at) if job.finished_at else "",
        "took": span(job.finished_at - job.started_at)
        if job.finished_at and job.started_at
        else "–",
        "since": span(now() - job.started_at) if job.started_at else "–",
    }
    match job.state:
        case JobState.SCHEDULED:
            return _("Scheduled: it runs on %(queue)s %(due)s.") % facts
        case JobState.WAITING:
            return _("Due %(due)s; it waits for a worker of %(queue)s.") % facts
        case JobState.ACTIVE:
            return _("Running for %(since)s on %(worker)s, attempt %(next)s of %(max)s.") % facts
        case JobState.RETRYING:
            sentence = (
                _(
                    "Attempt %(attempt)s of %(max)s failed with %(error)s; "
                    "attempt %(next)s is due %(due)s"
                )
                % facts
            )
            return _then(sentence, upcoming[1:])
        case JobState.COMPLETED:
            return _("Completed %(when)s at attempt %(attempt)s of %(max)s.") % facts
        case JobState.DEAD:
            return (
                _(
                    "Failed for good %(when)s after %(attempt)s of %(max)s attempts with "
                    "%(error)s; it runs again only when somebody requeues its dead letter."
                )
                % facts
            )
        case JobState.CANCELLED:
            return _("Cancelled %(when)s; it will not run.") % facts
    return str(job.state)


def about_dead_letter(dead_letter: DeadLetter, job: Job) -> str:
    """Say why a job died, whether a repeat can help, and what was done about it."""
    facts = {
        "error": _error(dead_letter.error_class, dead_letter.error_message),
        "by": dead_letter.requeued_by or _("a program"),
        "closer": dead_letter.closed_by or _("a program"),
        "requeued": relative(dead_letter.requeued_at) if dead_letter.requeued_at else "",
        "recovered": relative(dead_letter.recovered_at) if dead_letter.recovered_at else "",
        "closed": relative(dead_letter.closed_at) if dead_letter.closed_at else "",
        "reason": excerpt(dead_letter.closing_reason),
        "state": JobState(job.state).label if job.state in JobState.values else job.state,
        "attempts": dead_letter.attempts,
        "deaths": dead_letter.deaths,
        "actor": dead_letter.actor,
    }
    match dead_letter.status:
        case DeadLetterStatus.REQUEUED:
            return (
                _(
                    "Requeued %(requeued)s by %(by)s; its job is %(state)s, and how the "
                    "repeat ends is not known yet."
                )
                % facts
            )
        case DeadLetterStatus.RECOVERED:
            return (
                _("Recovered %(recovered)s: %(by)s requeued it %(requeued)s and the run completed.")
                % facts
            )
        case DeadLetterStatus.PERMANENTLY_FAILED:
            return _("Marked permanently failed %(closed)s by %(closer)s: %(reason)s") % facts
    sentence = str(_CAUSES.get(DeathCause(dead_letter.died_by), "%(error)s")) % facts
    if dead_letter.deaths > 1:
        sentence += " " + _("It has failed for good %(deaths)s times.") % facts
    return sentence


_CAUSES = {
    DeathCause.REJECTED: _lazy(
        "%(error)s – permanent: a repeat will not help until the cause is corrected."
    ),
    DeathCause.ATTEMPTS_EXHAUSTED: _lazy(
        "All %(attempts)s attempts failed, the last with %(error)s – requeue it when the "
        "cause is gone."
    ),
    DeathCause.TIME_LIMIT: _lazy(
        "It ran longer than its time limit in each of %(attempts)s attempts – find out what "
        "it waited for before requeueing it."
    ),
    DeathCause.EXPIRED: _lazy(
        "It was older than it may be when its turn came, so it was not run – requeue it only "
        "if its effect is still wanted."
    ),
    DeathCause.UNKNOWN_ACTOR: _lazy(
        "No worker knows the actor %(actor)s – deploy code that has it, then requeue."
    ),
    DeathCause.UNDECODABLE: _lazy(
        "Its message could not be read, so nothing was run; what is kept is shown below – %(error)s."
    ),
    DeathCause.WORKER_CRASHED: _lazy(
        "Worker processes died while running it – it was stopped to protect the others; a "
        "repeat may end the same way."
    ),
}


def _error(error_class: str, message: str) -> str:
    """Return an error in one line."""
    text = excerpt(message)
    if not error_class:
        return text or _("an unknown error")
    return f"{error_class}: {text}" if text else error_class


def _then(sentence: str, later: list[datetime]) -> str:
    """Add when the attempts after the next are due."""
    if not later:
        return sentence + "."
    times = ", ".join(date_format(localtime(moment), "H:i:s") for moment in later[:4])
    more = "…" if len(later) > 4 else ""
    return sentence + _("; if that fails too, at %(times)s%(more)s.") % {
        "times": times,
        "more": more,
    }
