"""Runs one job in a process of its own: a job that may kill the process it runs in.

A worker's thread starts the process, waits for it, and reports how it died if it did. The
process hands the job's ending over in a file, and the worker's recorder commits it like any
other: it holds on to it for as long as the ledger is away.
"""

import argparse
import importlib
import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from queue import Queue
from typing import IO, TYPE_CHECKING, Any

import dramatiq

from .conf import settings

if TYPE_CHECKING:
    from .brokers.base import LedgerBroker
    from .execution import Execution
    from .ledger import Ending

logger = logging.getLogger(__name__)

#: The ledger was away before the job could start.
_EXIT_NOT_RUN = 5


class NotRun(Exception):
    """The job has not been started."""


# --- The worker's side ----------------------------------------------------------------
def run_apart(broker: "LedgerBroker", run: "Execution", *, limit_seconds: float) -> "Ending | None":
    """Run a claimed job in a process of its own; return how the run ended.

    Args:
        broker: the worker's broker.
        run: the claimed run.
        limit_seconds: after which the process is ended as one whose job cannot be stopped.

    Returns:
        The ending, to be committed by the worker; None when the ledger knows already: the
        process died or was ended, or somebody else has moved the job.

    Raises:
        NotRun: the ledger was away before the start.
    """
    with tempfile.TemporaryFile() as ending:
        return _run_in(ending, broker, run, limit_seconds)


def _run_in(
    file: IO[bytes], broker: "LedgerBroker", run: "Execution", limit_seconds: float
) -> "Ending | None":
    # Both need models, and the broker, which imports this, is built before them.
    from . import crashes, hard_limits
    from .scoreboard import Running

    command = [sys.executable, "-m", "queueadmin.apart", "--parent", str(os.getpid())]
    command += ["--job", run.job, "--dispatch", str(run.dispatch)]
    command += ["--ending", str(file.fileno()), "--path", *sys.path]
    process = subprocess.Popen(  # noqa: S603  # our own module
        [*command, "--", *broker.modules], pass_fds=[file.fileno()]
    )
    worker = f"{broker.transport.worker_id.rsplit(':', 2)[0]}:{process.pid}"
    logger.info("Job %s runs apart, in process %d.", run.job, process.pid)
    running = Running(run.job, run.dispatch, run.started, float("inf"))
    try:
        code = process.wait(limit_seconds + settings.HARD_LIMIT_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        hard_limits.record_overrun(broker, running, seconds=limit_seconds, worker=worker)
        return None
    if code == _EXIT_NOT_RUN:
        raise NotRun(f"process {process.pid} could not ask the ledger for the job")
    if code == 0:
        file.seek(0)
        try:
            found: Ending | None = pickle.load(file)  # noqa: S301  # our own process wrote it
            return found
        except EOFError:
            # The job has ended the process behind Python's back, with an exit code that lies.
            pass
    crashes.record(broker, [running], worker=worker)
    return None


# --- The process of its own -----------------------------------------------------------
class _Sink:
    """Stands in for the consumer; what it would settle is in the worker's hands."""

    def post_process_message(self, message: Any) -> None:
        """Leave the message: the worker that started this process settles it."""


def main(arguments: list[str] | None = None) -> int:
    """Run the job and hand its ending over; return the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", required=True)
    parser.add_argument("--dispatch", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--ending", type=int, required=True, help="descriptor of a file")
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
    try:
        ending = _run(dramatiq.get_broker(), options.job, options.dispatch)
    except NotRun as error:
        logger.error("Job %s is not run: %s", options.job, error)
        return _EXIT_NOT_RUN
    with os.fdopen(options.ending, "wb") as file:
        pickle.dump(ending, file)
    return 0


def _run(broker: Any, job: str, dispatch: int) -> "Ending | None":
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
        raise NotRun(f"the ledger is away: {error}") from error
    if not parcels:
        return None
    message: Message[Any] = payloads.open_message(Message.decode(parcels[0].data))
    broker.knows(message)  # the worker may have met its actor later than at its start
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
    broker.close()
    return delivery.ending or interrupted(delivery)


if __name__ == "__main__":
    sys.exit(main())
