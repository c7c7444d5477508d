"""One worker process of `rundramatiq`; the supervisor starts and restarts it.

It replaces the worker half of Dramatiq's command line, which passes every log line
through a pipe to its master and ends all processes when one dies.
"""

import argparse
import ctypes
import importlib
import logging
import os
import signal
import sys
import threading
import time
from types import FrameType

import dramatiq

logger = logging.getLogger(__name__)

EXIT_CONFIGURATION = 2
#: A service manager signals the whole group and the supervisor passes it on: that is one
#: request to stop, not the impatient second one.
SAME_SIGNAL_SECONDS = 2.0
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

    django.setup()
    for module in options.modules:
        importlib.import_module(module)
    broker = dramatiq.get_broker()
    broker.emit_after("process_boot")
    worker = dramatiq.Worker(
        broker, queues=set(options.queues or ()), worker_threads=options.threads
    )
    worker.start()
    logger.info("Worker %d is ready with %d threads.", os.getpid(), options.threads)
    stop.wait()
    logger.info("Worker %d stops.", os.getpid())
    worker.stop(timeout=options.shutdown_timeout_ms)
    broker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
