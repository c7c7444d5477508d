"""The only writer of a job's state; everything else reads.

Every change is one conditional UPDATE on state and dispatch number, so of two rivals the
row count says who won. Nothing here talks to the broker: callers push after commit.
"""

from .dispatching import Parcel, confirm, next_due, parcels_of, promote_due, rescue, unconfirmed
from .endings import Committed, Ending, commit, mark_active
from .enqueuing import NewJob, insert
from .requeuing import cancel_queue, requeue

__all__ = [
    "Committed",
    "Ending",
    "NewJob",
    "Parcel",
    "cancel_queue",
    "commit",
    "confirm",
    "insert",
    "mark_active",
    "next_due",
    "parcels_of",
    "promote_due",
    "requeue",
    "rescue",
    "unconfirmed",
]
