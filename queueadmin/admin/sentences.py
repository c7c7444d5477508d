"""One sentence per record that answers: where is it, what happened, what comes next?"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy
from django.utils.translation import ngettext

from ..clock import now
from ..display import exact, excerpt, plain, relative, span
from ..failuregroups import Outbreak
from ..models import DeadLetter, FailureGroup, Job, RequeueOperation
from ..operations import Progress
from ..states import DeadLetterStatus, DeathCause, GroupStatus, JobState, OperationStatus


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
        "parked": exact(job.parked_at) if job.parked_at else "",
        "asked": relative(job.cancel_requested_at) if job.cancel_requested_at else "",
        "error": _error(job.error_class, job.error_message),
        "worker": job.worker or _("a worker"),
        "when": relative(job.finished_at) if job.finished_at else "",
        "took": span(job.finished_at - job.started_at)
        if job.finished_at and job.started_at
        else "–",
        "since": span(now() - job.started_at) if job.started_at else "–",
    }
    if job.is_cancelling:
        return (
            _(
                "Cancel requested %(asked)s: it does not start, or is interrupted, and ends "
                "as cancelled unless it completes before."
            )
            % facts
        )
    match job.state:
        case JobState.SCHEDULED if job.parked_at is not None:
            return (
                _("No worker can run it since %(parked)s; the next look is due %(due)s. %(error)s")
                % facts
            )
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
        case JobState.COMPLETED if job.cancel_requested_at is not None:
            return (
                _(
                    "Completed %(when)s at attempt %(attempt)s of %(max)s, before it could be cancelled."
                )
                % facts
            )
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


def about_snooze(record: DeadLetter | FailureGroup) -> str:
    """Say what ends the snooze of a record; whatever comes first."""
    ends = []
    if record.snoozed_until is not None:
        ends.append(_("until %(when)s") % {"when": exact(record.snoozed_until)})
    if record.snoozed_deaths is not None:
        ends.append(
            _("until failure %(count)s of its group") % {"count": f"{record.snoozed_deaths:,}"}
        )
    if record.snoozed_release:
        ends.append(
            _("until another release than %(name)s") % {"name": plain(record.snoozed_release)}
        )
    return _(" or ").join(ends) or _("until somebody wakes it")


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
    # It becomes part of a sentence.
    text, error_class = excerpt(message).removesuffix("."), plain(error_class)
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


def about_group(group: FailureGroup, outbreak: Outbreak | None) -> str:
    """Say what trouble a group is and how it stands, in one sentence."""
    facts = {
        "error": _error(group.error_class, group.error_message),
        "deaths": f"{group.deaths:,}",
        "first": relative(group.first_seen_at),
        "last": relative(group.last_seen_at),
        "resolved": relative(group.resolved_at) if group.resolved_at else "",
        "by": group.resolved_by or _("a program"),
        "done": excerpt(group.resolution),
        "back": relative(group.regressed_at) if group.regressed_at else "",
    }
    match group.status:
        case GroupStatus.RESOLVED:
            return _("Resolved %(resolved)s by %(by)s: %(done)s") % facts
        case GroupStatus.REGRESSED:
            return _("%(error)s – it came back %(back)s although it was resolved: %(done)s") % facts
        case GroupStatus.SNOOZED:
            return _("%(error)s – snoozed; %(deaths)s failures, the last %(last)s.") % facts
    if group.deaths <= 1:
        return _("%(error)s – one failure, %(last)s.") % facts
    return (
        _("%(error)s – %(deaths)s failures since it was first seen %(first)s, the last %(last)s.")
        % facts
    )


def evidence_of(outbreak: Outbreak | None) -> list[tuple[str, dict[str, str]]]:
    """Return what the failures of an outbreak have in common, each with the filter that shows it."""
    if outbreak is None:
        return []
    since = {"since": outbreak.began_at.isoformat()}
    number = f"{outbreak.count:,}" + ("+" if outbreak.is_more else "")
    facts = {"number": number, "span": span(outbreak.length)}
    is_moment = outbreak.length < timedelta(seconds=1)
    found = [
        ((_("%(number)s at once") if is_moment else _("%(number)s in %(span)s")) % facts, since),
        (_("%(share)d %% of all failures then") % {"share": outbreak.share}, since),
    ]
    if outbreak.release:
        release = plain(outbreak.release)
        text = _("only release %(release)s") % {"release": release}
        if outbreak.after_release is not None:
            text = _("began %(span)s after release %(release)s") % {
                "span": span(outbreak.after_release),
                "release": release,
            }
        found.append((text, {**since, "release": outbreak.release}))
    if outbreak.queue:
        found.append(
            (
                _("only queue %(queue)s") % {"queue": plain(outbreak.queue)},
                {**since, "queue": outbreak.queue},
            )
        )
    if outbreak.host:
        found.append(
            (
                _("only host %(host)s") % {"host": plain(outbreak.host)},
                {**since, "host": outbreak.host},
            )
        )
    return found


def about_operation(operation: RequeueOperation, numbers: Progress) -> str:
    """Say how far a guarded requeue is and what comes next."""
    facts = {
        "ended": f"{numbers.ended:,}",
        "released": f"{numbers.released:,}",
        "total": f"{numbers.total - numbers.skipped:,}",
        "failed": f"{numbers.failed:,}",
        "recovered": f"{numbers.recovered:,}",
        "share": f"{numbers.failed_percent:.1f}",
        "canary": operation.canary,
        "rate": f"{operation.rate:g}",
        "start": relative(operation.start_at),
        "why": excerpt(operation.note, 300),
        "waiting": f"{numbers.waiting:,}",
    }
    match operation.status:
        case OperationStatus.SCHEDULED:
            return (
                ngettext(
                    "It starts %(start)s with %(waiting)s job.",
                    "It starts %(start)s with %(waiting)s jobs.",
                    numbers.waiting,
                )
                % facts
            )
        case OperationStatus.CANARY:
            return (
                _(
                    "The canary runs: %(ended)s of %(canary)s ended, %(failed)s failed again. The "
                    "rest waits for it."
                )
                % facts
            )
        case OperationStatus.RUNNING:
            return (
                _(
                    "%(released)s of %(total)s jobs are requeued, at %(rate)s per second; "
                    "%(failed)s failed again (%(share)s %%)."
                )
                % facts
            )
        case OperationStatus.PAUSED:
            return (
                _("Paused with %(waiting)s jobs left; nothing is requeued until it is resumed.")
                % facts
            )
        case OperationStatus.STOPPED:
            return (
                _(
                    "It stopped by itself with %(waiting)s jobs left: %(why)s Resume it when the cause is gone."
                )
                % facts
            )
        case OperationStatus.ABORTED:
            return _("Aborted: %(released)s of %(total)s jobs had been requeued.") % facts
    return (
        _("Finished: %(recovered)s of %(total)s recovered, %(failed)s failed again (%(share)s %%).")
        % facts
    )


def promise_of_operation(values: Mapping[str, Any], eligible: int) -> str:
    """Say in numbers what a guarded requeue will do."""
    canary, rate = min(values["canary"], eligible), values["rate"]
    length = span(timedelta(seconds=eligible / rate))
    facts = {
        "eligible": f"{eligible:,}",
        "canary": f"{canary:,}",
        "rest": f"{eligible - canary:,}",
        "rate": f"{rate:g}",
        "stop": values["stop_at_percent"],
        "span": length,
    }
    text = _(
        "%(eligible)s jobs get a new round of attempts, %(rate)s per second, in about %(span)s."
    )
    if canary:
        text = _(
            "%(canary)s jobs run first; when fewer than %(stop)s %% of them fail again, the other "
            "%(rest)s follow, %(rate)s per second, in about %(span)s."
        )
    return text % facts + " " + _("It stops by itself at %(stop)s %% failures.") % facts
