"""queueadmin's own jobs, run by the schedules."""

import dramatiq

from . import mentions, recovery, retention


@dramatiq.actor(queue_name="data-cleanup", actor_name="queueadmin.recover")
def recover() -> dict[str, int] | None:
    """Compare ledger and broker and repair; None when another run is under way."""
    run = recovery.recover()
    return None if run is None else run.found


@dramatiq.actor(queue_name="data-cleanup", actor_name="queueadmin.apply_retention")
def apply_retention() -> dict[str, int]:
    """Remove finished jobs past their time."""
    return retention.apply_retention()


@dramatiq.actor(queue_name=mentions.QUEUE, actor_name=mentions.ACTOR)
def tell_mentioned(kind: str, note_id: int, user_id: int) -> bool:
    """Mail somebody the note that names them; sent twice at worst, if the process dies then."""
    return mentions.tell(kind, note_id, user_id)
