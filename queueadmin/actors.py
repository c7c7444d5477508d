"""queueadmin's own jobs, run by the schedules."""

from datetime import timedelta

import dramatiq

from . import alert_messages, digests, mentions, recovery, retention
from .exceptions import RetryAfter


@dramatiq.actor(queue_name="data-cleanup", actor_name="queueadmin.recover")
def recover() -> dict[str, int] | None:
    """Compare ledger and broker and repair; None when another run is under way."""
    run = recovery.recover()
    return None if run is None else run.found


@dramatiq.actor(queue_name="data-cleanup", actor_name="queueadmin.apply_retention")
def apply_retention() -> dict[str, int]:
    """Remove finished jobs past their time."""
    return retention.apply_retention()


@dramatiq.actor(
    queue_name="alerts", actor_name=alert_messages.ACTOR, max_retries=9, time_limit=60_000
)
def send_alert(message: int) -> bool:
    """Send one message about alerts; False when that was done."""
    try:
        return alert_messages.send(message)
    except alert_messages.NotYet as later:
        wait_ms = round(later.wait / timedelta(milliseconds=1)) + 1
        raise RetryAfter(str(later.__cause__ or later), delay_ms=wait_ms) from later


@dramatiq.actor(queue_name=mentions.QUEUE, actor_name=mentions.ACTOR)
def tell_mentioned(kind: str, note_id: int, user_id: int) -> bool:
    """Mail somebody the note that names them; sent twice at worst, if the process dies then."""
    return mentions.tell(kind, note_id, user_id)


@dramatiq.actor(queue_name="alerts", actor_name="queueadmin.send_digests", time_limit=600_000)
def send_digests() -> int:
    """Send today's digest to everybody who owns something; return how many."""
    return digests.send_all()
