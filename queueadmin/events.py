"""One log line per event of a job, with its facts as fields.

The lines go to the logger "queueadmin.jobs". A JSON formatter shows the fields of `extra`;
a text formatter shows the message, which names them too. Arguments of a job are never
logged: error texts are the only free text, and they are bounded.
"""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from . import execution
from .states import JobState, Outcome

if TYPE_CHECKING:
    from .execution import Execution
    from .ledger import Ended, Ending

logger = logging.getLogger("queueadmin.jobs")

_TEXT_LIMIT = 300
_LEVELS = {
    Outcome.COMPLETED: logging.INFO,
    Outcome.RETRYING: logging.WARNING,
    Outcome.DEAD: logging.ERROR,
    Outcome.RETURNED: logging.INFO,
    Outcome.CANCELLED: logging.INFO,
}


class Redaction(logging.Filter):
    """Cuts the sensitive values of the job that the thread runs out of its log lines.

    Dramatiq's loggers have it. Name it as a filter of a handler in LOGGING, and the lines
    of the project's own actors are treated alike.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record pass, its text and stack without those values."""
        run = execution.current()
        if run is None:
            return True
        text = record.getMessage()
        if (redacted := run.redact(text)) != text:
            record.msg, record.args = redacted, ()
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = run.trace(record.exc_info[1]).rstrip("\n")
            record.exc_info = None
        return True


REDACTION = Redaction()
# "Failed to process message", with the stack, comes from there.
logging.getLogger("dramatiq.worker.WorkerThread").addFilter(REDACTION)


def started(run: "Execution") -> None:
    """Log that a run begins; at level DEBUG, because its end is logged in any case."""
    if logger.isEnabledFor(logging.DEBUG):
        facts = {
            "job": run.job,
            "queue": run.queue,
            "actor": run.actor,
            "attempt": run.attempt,
        }
        logger.debug(
            "started job=%(job)s queue=%(queue)s actor=%(actor)s attempt=%(attempt)d",
            facts,
            extra={"event": "started", **facts},
        )


def cancelled(jobs: "Iterable[Ended]") -> None:
    """Log jobs that were cancelled before they could start."""
    if logger.isEnabledFor(logging.INFO):
        for job in jobs:
            facts = job._asdict()
            logger.info(
                "cancelled job=%(job)s queue=%(queue)s actor=%(actor)s",
                facts,
                extra={"event": "cancelled", **facts},
            )


def is_told(ending: "Ending") -> bool:
    """Return whether the line of such an ending would be written."""
    return logger.isEnabledFor(_LEVELS[ending.outcome])


def ended(ending: "Ending", max_attempts: int | None) -> None:
    """Log how a run ended: with duration, and for a failure the error, delay or cause.

    Args:
        ending: how it ended.
        max_attempts: how often the job may run, None for without end.
    """
    if not is_told(ending):
        return
    level = _LEVELS[ending.outcome]
    facts: dict[str, object] = {
        "job": ending.job,
        "queue": ending.queue,
        "actor": ending.actor,
        "attempt": ending.attempt,
        "of": max_attempts if max_attempts is not None else "unlimited",
        "duration_ms": round(ending.duration_ms),
    }
    text = (
        "%(event)s job=%(job)s queue=%(queue)s actor=%(actor)s attempt=%(attempt)s/%(of)s "
        "duration_ms=%(duration_ms)s"
    )
    if ending.error_class:
        facts["error"] = f"{ending.error_class}: {ending.error_message}"[:_TEXT_LIMIT]
        text += " error=%(error)r"
    if ending.state in (JobState.RETRYING, JobState.WAITING) and ending.delay_ms is not None:
        facts["delay_ms"] = ending.delay_ms
        text += " delay_ms=%(delay_ms)s"
    if ending.cause is not None:
        facts["died_by"] = ending.cause.value
        text += " died_by=%(died_by)s"
    facts["event"] = ending.outcome.value
    # Not by `log`: it would look for the place in the code that the line comes from.
    logger.handle(
        logger.makeRecord(logger.name, level, __file__, 0, text, (facts,), None, "ended", facts)
    )


def of_queue(event: str, queue: str, **facts: object) -> None:
    """Log what happened to a queue: paused, resumed, limited."""
    if logger.isEnabledFor(logging.INFO):
        text = "".join(f" {name}=%({name})r" for name in facts)
        facts = {"event": event, "queue": queue, **facts}
        logger.info("%(event)s queue=%(queue)s" + text, facts, extra=facts)
