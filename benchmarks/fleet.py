"""Real worker processes for a measurement, and what they noted."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from dramatiq import Message

if TYPE_CHECKING:
    from queueadmin.brokers.base import LedgerBroker

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job, in seconds since 1970."""

    number: int
    begun: float
    ended: float
    process: int


def wait_until(condition: Callable[[], bool], seconds: float, every: float = 0.05) -> None:
    """Wait for a fact.

    Raises:
        TimeoutError: it did not come true in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {seconds} s in vain.")
        time.sleep(every)  # paces the looks


class Fleet:
    """`rundramatiq` with processes of its own on this process's database; a context manager.

    Args:
        processes: worker processes.
        threads: threads of each.
        database: name of the database the workers use.
        server: variables of the environment that name their message server.
        namespace: prefix of what they have there.
        job_log: from which level on they write a line for each event of a job.
    """

    def __init__(
        self,
        *,
        processes: int,
        threads: int,
        database: str,
        server: dict[str, str],
        namespace: str,
        job_log: str = "WARNING",
    ) -> None:
        self.processes = processes
        self.threads = processes * threads
        self._directory = tempfile.TemporaryDirectory(prefix="queueadmin-fleet-")
        self.journal = Path(self._directory.name) / "journal"
        self.log = Path(self._directory.name) / "log"
        self._command = [sys.executable, "manage.py", "rundramatiq"]
        self._command += ["-p", str(processes), "-t", str(threads)]
        self._environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
            "BENCHMARK_DATABASE": database,
            "BENCHMARK_NAMESPACE": namespace,
            "BENCHMARK_JOB_LOG": job_log,
            "BENCHMARK_JOURNAL": str(self.journal),
            **server,
        }
        self._master: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Fleet":
        """Start the processes and wait until all are ready."""
        self.journal.touch()
        with open(self.log, "wb") as log:
            self._master = subprocess.Popen(  # noqa: S603  # our own command
                self._command,
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(lambda: self.log.read_text().count("is ready") == self.processes, 60)
        except TimeoutError as error:
            text = self.log.read_text()[-4_000:]
            self.__exit__()
            raise RuntimeError(f"The workers did not start:\n{text}") from error
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes."""
        assert self._master is not None  # noqa: S101  # set on entry
        children = self.workers()
        self._master.terminate()
        try:
            self._master.wait(20)
        except subprocess.TimeoutExpired:
            self._master.kill()
            self._master.wait()
        for child in children:
            if child.is_running():
                child.kill()
        psutil.wait_procs(children, timeout=10)
        self._directory.cleanup()

    def workers(self) -> list[psutil.Process]:
        """Return the living worker processes."""
        if self._master is None or self._master.poll() is not None:
            return []
        return [
            child
            for child in psutil.Process(self._master.pid).children()
            if child.status() != psutil.STATUS_ZOMBIE
        ]

    def memory(self) -> list[int]:
        """Return the bytes each worker process holds, by its id's order."""
        return [child.memory_info().rss for child in sorted(self.workers(), key=lambda p: p.pid)]

    def runs(self) -> list[Run]:
        """Return what has run, in the order of its beginning."""
        return sorted(self._read(), key=lambda run: run.begun)

    def _read(self) -> Iterator[Run]:
        for line in self.journal.read_text().splitlines():
            number, begun, ended, process = line.split()
            yield Run(int(number), float(begun), float(ended), int(process))

    def wait_for(self, count: int, seconds: float) -> list[Run]:
        """Wait until so many runs are noted, and return them."""
        wait_until(lambda: self.journal.read_bytes().count(b"\n") >= count, seconds)
        return self.runs()


def send_many(
    broker: "LedgerBroker",
    queue: str,
    numbers: Iterable[int],
    seconds: float = 0.0,
    **options: Any,
) -> None:
    """Enqueue one job of a queue's actor per number."""
    broker.enqueue_many(message(queue, number, seconds, **options) for number in numbers)


def message(queue: str, number: int, seconds: float = 0.0, **options: Any) -> Message[None]:
    """Return a message for a queue's actor; the sender need not know the actor itself."""
    return Message(
        queue_name=queue,
        actor_name=f"benchmark.{queue}",
        args=(number, seconds),
        kwargs={},
        options=options,
    )


def most_at_once(runs: Sequence[Run]) -> int:
    """Return how many runs overlapped at most; one that ends as another begins does not."""
    changes = sorted([(run.begun, 1) for run in runs] + [(run.ended, -1) for run in runs])
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def most_in_window(moments: Sequence[float], seconds: float) -> int:
    """Return how many moments lie in any half-open window of that length."""
    ordered = sorted(moments)
    most = first = 0
    for index, moment in enumerate(ordered):
        while ordered[first] <= moment - seconds:
            first += 1
        most = max(most, index - first + 1)
    return most
