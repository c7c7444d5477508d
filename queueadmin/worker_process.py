"""One worker process of `rundramatiq`; the supervisor starts and restarts it.

It replaces the worker half of Dramatiq's command line, which passes every log line
through a pipe to its master and ends all processes when one dies.
"""

import argparse
import ctypes
import gc
import importlib
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import dramatiq

logger = logging.getLogger(__name__)

EXIT_CONFIGURATION = 2
#: A thread that the process needs had died.
EXIT_BROKEN = 3
#: It had done as many jobs, or grown as large, as it may.
EXIT_RECYCLED = 4
#: A service manager signals the whole group and the supervisor passes it on: that is one
#: request to stop, not the impatient second one.
SAME_SIGNAL_SECONDS = 2.0
# After so many objects more than were freed Python looks for garbage in cycles, instead of after
# some hundreds. Jobs leave hardly any, but up to a second's outcomes wait for their commit, and all
# that survives is looked through again: a tenth of what a job without work cost a process.
_GARBAGE_FROM = 10_000
_THRESHOLD = gc.get_threshold()
_LOOK_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent(parent: int) -> None:
    """Arrange that this process is told to stop when its supervisor is gone, however it went."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # Elsewhere, and for a parent that died before the call above.
    threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        threading.Event().wait(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: list[str] | None = None) -> int:
    """Run a worker until told to stop; return the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--shutdown-timeout-ms", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--scoreboard", type=Path)
    parser.add_argument("--recycle-jobs", type=int, default=0)
    parser.add_argument("--recycle-mb", type=int, default=0)
    parser.add_argument("--queues", nargs="*")
    parser.add_argument("--path", nargs="*", default=["."])
    parser.add_argument("modules", nargs="*")
    options = parser.parse_args(arguments)

    stop = threading.Event()
    stopped_at = 0.0
    end_with_parent(options.parent)

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal stopped_at
        if not stop.is_set():
            stopped_at = time.monotonic()
            stop.set()
        elif time.monotonic() - stopped_at > SAME_SIGNAL_SECONDS:
            logger.warning("Second signal: ending at once; running jobs will run again.")
            os._exit(1)

    # Ctrl-C reaches the whole group; only the supervisor answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_signal)

    sys.path[:0] = options.path
    import django
    from django.db.backends.base.base import BaseDatabaseWrapper

    # Under DEBUG Django keeps the last 9,000 queries of every thread with all their
    # parameters; between requests it forgets them, but here are none.
    BaseDatabaseWrapper.queries_limit = 100
    django.setup()
    for module in options.modules:
        importlib.import_module(module)
    broker: Any = dramatiq.get_broker()
    if options.scoreboard is not None:
        from .scoreboard import Scoreboard

        broker.scoreboard = Scoreboard.open(options.scoreboard)
    broker.request_stop = stop.set
    broker.modules = options.modules
    broker.emit_after("process_boot")
    # What is loaded now stays. Without this every full collection of garbage, which about ten
    # thousand short jobs bring about, looks through all of it: 60 to 100 ms in which no thread
    # runs.
    gc.collect()
    gc.freeze()
    if gc.get_threshold() == _THRESHOLD:
        # A project that has set its own knows why.
        gc.set_threshold(_GARBAGE_FROM)
    worker = dramatiq.Worker(
        broker, queues=set(options.queues or ()), worker_threads=options.threads
    )
    worker.start()
    logger.info("Worker %d is ready with %d threads.", os.getpid(), options.threads)
    code = 0
    while not code and not stop.wait(_LOOK_SECONDS):
        if dead := _dead_threads(worker, broker):
            logger.critical("Worker %d ends: %s died.", os.getpid(), ", ".join(dead))
            code = EXIT_BROKEN
        elif reason := _must_recycle(broker, options.recycle_jobs, options.recycle_mb):
            logger.info("Worker %d is replaced: %s.", os.getpid(), reason)
            code = EXIT_RECYCLED
    logger.info("Worker %d stops.", os.getpid())
    worker.stop(timeout=options.shutdown_timeout_ms)
    broker.close()
    return code


def _dead_threads(worker: dramatiq.Worker, broker: Any) -> list[str]:
    """Return the names of threads that should run and do not; nothing restarts them."""
    threads = [*worker.workers, *list(worker.consumers.values())]
    threads += [*broker.recorder.threads, *broker.dispatcher.threads]
    return [thread.name for thread in threads if not thread.is_alive()]


def _must_recycle(broker: Any, jobs: int, megabytes: int) -> str:
    """Return why this process should be replaced, or nothing."""
    if jobs and broker.recorder.recorded >= jobs:
        return f"{broker.recorder.recorded} jobs done"
    if megabytes:
        # Not on Windows, where a worker runs without recycling.
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        used = peak // (1024 if sys.platform == "linux" else 1024 * 1024)
        if used >= megabytes:
            return f"{used} MB used at its peak"
    return ""


if __name__ == "__main__":
    sys.exit(main())
