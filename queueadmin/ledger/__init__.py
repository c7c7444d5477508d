"""The only writer of a job's state; everything else reads.

Every change is one conditional UPDATE on state and dispatch number, so of two rivals the
row count says who won. Nothing here talks to the broker: callers push after commit.
"""

from .cancelling import (
    Cancelled,
    Ended,
    cancel,
    cancel_withdrawn,
    cancelling,
    reschedule,
    run_now,
)
from .crashing import APART_FROM, crashed
from .dispatching import (
    Parcel,
    claim,
    confirm,
    in_state,
    next_due,
    over,
    parcels_of,
    promote_due,
    rescue,
    unconfirmed,
)
from .endings import Committed, Ending, commit, mark_active, show_progress
from .enqueuing import INSERT_BATCH, NewJob, add, insert
from .requeuing import Requeued, cancel_queue, requeue
from .unique import prune

__all__ = [
    "APART_FROM",
    "INSERT_BATCH",
    "Cancelled",
    "Committed",
    "Ended",
    "Ending",
    "NewJob",
    "Parcel",
    "Requeued",
    "add",
    "cancel",
    "cancel_queue",
    "cancel_withdrawn",
    "cancelling",
    "claim",
    "commit",
    "confirm",
    "crashed",
    "in_state",
    "insert",
    "mark_active",
    "next_due",
    "over",
    "parcels_of",
    "promote_due",
    "prune",
    "requeue",
    "reschedule",
    "rescue",
    "run_now",
    "show_progress",
    "unconfirmed",
]
