"""Records the jobs that ran in a process when it died."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import clock, events, ledger
from .scoreboard import Running

if TYPE_CHECKING:
    from .brokers.base import LedgerBroker

logger = logging.getLogger(__name__)


def record(broker: "LedgerBroker", running: Sequence[Running], *, worker: str) -> None:
    """Count a crash of each job that ran; push those again that may try once more.

    Args:
        broker: where to push them.
        running: what the dead process's scoreboard said. What it had only fetched is not
            among it, and is not suspected.
        worker: `host:pid` of the process.
    """
    clock.synchronise()
    again, dead = ledger.crashed([(run.job, run.dispatch) for run in running], worker=worker)
    if again:
        logger.warning("Worker %s died while it ran %d jobs; they run again.", worker, len(again))
        broker.push(again)
    for ending in dead:
        events.ended(ending, None)
