"""Runs one job in a process of its own: a job that may kill the process it runs in.

A worker's thread starts the process, waits for it, and reports how it died if it did. The
job's outcome is committed by the process itself.
"""

import argparse
import importlib
import logging
import os
import signal
import subprocess
import sys
from queue import Queue
from typing import TYPE_CHECKING, Any

import dramatiq

from .conf import settings

if TYPE_CHECKING:
    from .brokers.base import LedgerBroker
    from .execution import Execution

logger = logging.getLogger(__name__)

#: The ledger was away when the outcome was to be committed.
_EXIT_UNRECORDED = 5


# --- The worker's side ----------------------------------------------------------------
def run_apart(broker: "LedgerBroker", run: "Execution", *, limit_seconds: float) -> bool:
    """Run a claimed job in a process of its own; return whether its outcome is in the ledger.

    Args:
        broker: the worker's broker.
        run: the claimed run.
        limit_seconds: after which the process is ended as one whose job cannot be stopped.
    """
    # Both need models, and the broker, which imports this, is built before them.
    from . import crashes, hard_limits
    from .scoreboard import Running

    command = [sys.executable, "-m", "queueadmin.apart", "--parent", str(os.getpid())]
    command += ["--job", run.job, "--dispatch", str(run.dispatch), "--path", *sys.path]
    process = subprocess.Popen([*command, "--", *broker.modules])  # noqa: S603  # our own module
    worker = f"{broker.transport.worker_id.rsplit(':', 2)[0]}:{process.pid}"
    logger.info("Job %s runs apart, in process %d.", run.job, process.pid)
    running = Running(run.job, run.dispatch, run.started, float("inf"))
    try:
        code = process.wait(limit_seconds + settings.HARD_LIMIT_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        hard_limits.record_overrun(broker, running, seconds=limit_seconds, worker=worker)
        return True
    if code == _EXIT_UNRECORDED:
        return False
    if code != 0:
        crashes.record(broker, [running], worker=worker)
    return True


# --- The process of its own -----------------------------------------------------------
class _Sink:
    """Stands in for the consumer; the outcome is committed here, not by a recorder."""

    def post_process_message(self, message: Any) -> None:
        """Leave the message: the worker that started this process settles it."""


def main(arguments: list[str] | None = None) -> int:
    """Run the job and commit its outcome; return the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", required=True)
    parser.add_argument("--dispatch", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--path", nargs="*", default=["."])
    parser.add_argument("modules", nargs="*")
    options = parser.parse_args(arguments)

    from .worker_process import end_with_parent

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(options.parent)
    sys.path[:] = options.path
    import django

    django.setup()
    for module in options.modules:
        importlib.import_module(module)
    return _run(dramatiq.get_broker(), options.job, options.dispatch)


def _run(broker: Any, job: str, dispatch: int) -> int:
    from django.db import Error as DatabaseProblem
    from dramatiq.message import Message
    from dramatiq.worker import WorkerThread

    from . import clock, ledger, payloads
    from .consumer import Delivery
    from .models import Job
    from .recorder import interrupted
    from .time_limits import PolicyTimeLimit

    broker.emit_after("process_boot")
    try:
        # When a retry is due is decided here, and this host's clock may be wrong.
        clock.synchronise()
        broker.controls.refresh()
        parcels = ledger.parcels_of(Job.objects.filter(id=job, dispatch=dispatch))
    except DatabaseProblem as error:
        logger.error("Job %s is not run: %s", job, error)
        return _EXIT_UNRECORDED
    if not parcels:
        return 0
    message: Message[Any] = payloads.open_message(Message.decode(parcels[0].data))
    # Claimed already, so under an id that asks for no claim.
    delivery = Delivery(message, parcel_id=f"{job}:{dispatch}", dispatch=dispatch)
    for middleware in broker.middleware:
        if isinstance(middleware, PolicyTimeLimit):
            middleware.before_worker_boot(broker, None)
    queue: Queue[Any] = Queue()
    queue.put(delivery)
    thread = WorkerThread(
        broker=broker,
        consumers={message.queue_name: _Sink()},  # type: ignore[dict-item]
        work_queue=queue,  # type: ignore[arg-type]
        worker_timeout=1000,
    )
    thread.process_message(queue.get())
    try:
        committed = ledger.commit([delivery.ending or interrupted(delivery)])
    except DatabaseProblem as error:
        logger.error("The outcome of job %s could not be recorded: %s", job, error)
        return _EXIT_UNRECORDED
    broker.push(committed.parcels)
    broker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
