"""Other job systems, each run as its own documentation says, on the same servers."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from ..fleet import ROOT
from ..stand import Stand

#: What every job carries, so that its message is about 300 bytes long.
PAYLOAD = "x" * 100
PROCESSES, THREADS = 2, 8


class System(Protocol):
    """A job system under measurement."""

    name: str
    #: Its share of the jobs: a slow one gets fewer, its rate is what counts.
    share: float

    def fill(self, jobs: int) -> None:
        """Enqueue so many no-op jobs; nobody works yet."""

    def work(self) -> Any:
        """Return a context in which the workers run."""

    def left(self) -> int:
        """Return how many jobs have not ended yet; cheap enough to ask often."""

    def close(self) -> None:
        """Remove what it left behind."""


class Ours:
    """This project, with its ledger; a job has ended when its outcome is committed."""

    name = "queueadmin"
    share = 1.0

    def __init__(self, stand: Stand, queue: str = "noop") -> None:
        self._stand, self._queue = stand, queue
        self._key = stand.key(f"{queue}.msgs")

    def fill(self, jobs: int) -> None:
        from dramatiq import Message

        for start in range(0, jobs, 5_000):
            self._stand.broker.enqueue_many(
                Message(
                    queue_name=self._queue,
                    actor_name=f"benchmark.{self._queue}",
                    args=(PAYLOAD,),
                    kwargs={},
                    options={},
                )
                for _ in range(min(5_000, jobs - start))
            )

    def work(self) -> Any:
        # The lines of each job, as `make run` writes them.
        return self._stand.fleet(processes=PROCESSES, threads=THREADS, job_log="INFO")

    def left(self) -> int:
        # A message leaves the server after the commit of its outcome, never before.
        return int(self._stand.redis.hlen(self._key))

    def close(self) -> None:
        """The stand removes everything."""


class Dramatiq:
    """Dramatiq without a ledger.

    Args:
        stand: the servers.
        name: of the row in the report.
        queue: which queue of `benchmarks.rivals.bare`.
        environment: settings of Dramatiq's that are read from the environment.
    """

    share = 1.0
    module = "benchmarks.rivals.bare"

    def __init__(
        self,
        stand: Stand,
        name: str,
        queue: str = "noop",
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name, self._stand, self._queue = name, stand, queue
        self._namespace = f"benchmark-{os.getpid()}-{name}"
        self._environment = {
            **os.environ,
            "REDIS_URL": stand.redis_url,
            "BENCHMARK_NAMESPACE": self._namespace,
            **(environment or {}),
        }

    def fill(self, jobs: int) -> None:
        command = [sys.executable, "-m", self.module, self._queue, str(jobs), PAYLOAD]
        subprocess.run(command, cwd=ROOT, env=self._environment, check=True)  # noqa: S603

    @contextmanager
    def work(self) -> Iterator[None]:
        command = [str(Path(sys.executable).with_name("dramatiq")), self.module]
        command += ["-p", str(PROCESSES), "-t", str(THREADS), "--path", str(ROOT)]
        with started(command, self._environment):
            yield

    def broker(self) -> Any:
        """Return a broker of Dramatiq's own, to enqueue from this process."""
        from dramatiq.brokers.redis import RedisBroker

        return RedisBroker(url=self._stand.redis_url, namespace=self._namespace)

    def message(self, actor: str, *args: Any) -> Any:
        """Return a message for an actor of `module`."""
        from dramatiq import Message

        return Message(queue_name=actor, actor_name=actor, args=args, kwargs={}, options={})

    def left(self) -> int:
        # Dramatiq takes the message out of these hashes when it is acknowledged.
        return sum(
            int(self._stand.redis.hlen(f"{self._namespace}:{self._queue}{delayed}.msgs"))
            for delayed in ("", ".DQ")
        )

    def close(self) -> None:
        for key in self._stand.redis.scan_iter(f"{self._namespace}:*", count=1000):
            self._stand.redis.delete(key)


class WithAdminMiddleware(Dramatiq):
    """Dramatiq with django-dramatiq's table of tasks."""

    share = 0.1
    module = "benchmarks.rivals.admin_middleware"

    def __init__(self, stand: Stand, database: str) -> None:
        super().__init__(stand, f"django-dramatiq-admin-{database}")
        self._environment["DJANGO_SETTINGS_MODULE"] = "benchmarks.rivals.admin_settings"
        self._environment["BENCHMARK_DATABASE"] = stand.database
        self._environment["PYTHONPATH"] = str(ROOT)
        command = [sys.executable, "-m", "django", "migrate", "--verbosity", "0"]
        subprocess.run(command, cwd=ROOT, env=self._environment, check=True)  # noqa: S603

    def seconds_singly(self, jobs: int) -> float:
        """Enqueue job by job, each in its transaction, and return how long that took."""
        command = [sys.executable, "-m", self.module, self._queue, str(jobs), PAYLOAD]
        done = subprocess.run(  # noqa: S603
            command, cwd=ROOT, env=self._environment, check=True, capture_output=True, text=True
        )
        return float(done.stdout.splitlines()[-1])


class BullMQ:
    """BullMQ on Node, installed by npm into a folder of its own."""

    name = "bullmq"
    share = 1.0

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._prefix = f"benchmark-{os.getpid()}-bullmq"
        self._folder = Path(tempfile.mkdtemp(prefix="queueadmin-bullmq-"))
        for path in (Path(__file__).parent / "bullmq").iterdir():
            shutil.copy(path, self._folder)
        subprocess.run(  # noqa: S603
            [_npm(), "install", "--silent", "--no-audit", "--no-fund"], cwd=self._folder, check=True
        )
        self._environment = {**os.environ, "REDIS_URL": stand.redis_url, "PREFIX": self._prefix}
        self._filled = 0

    def _node(self, *arguments: str) -> list[str]:
        return [str(shutil.which("node")), *arguments]

    def fill(self, jobs: int) -> None:
        self._filled += jobs
        command = self._node("fill.js", str(jobs), PAYLOAD)
        subprocess.run(command, cwd=self._folder, env=self._environment, check=True)  # noqa: S603

    @contextmanager
    def work(self) -> Iterator[None]:
        command = self._node("worker.js", str(THREADS))
        with ExitStack() as stack:
            for _ in range(PROCESSES):
                stack.enter_context(started(command, self._environment, self._folder))
            yield

    def left(self) -> int:
        return self._filled - int(self._stand.redis.zcard(f"{self._prefix}:noop:completed"))

    def close(self) -> None:
        for key in self._stand.redis.scan_iter(f"{self._prefix}:*", count=1000):
            self._stand.redis.delete(key)
        shutil.rmtree(self._folder)


def _npm() -> str:
    found = shutil.which("npm")
    if found is None:
        raise FileNotFoundError("BullMQ needs Node.js with npm.")
    return found


@contextmanager
def started(command: list[str], environment: dict[str, str], folder: Path = ROOT) -> Iterator[None]:
    """Run a program with its output in a file, as a service manager does; end it afterwards."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield
            if process.poll() is not None:
                log.seek(0)
                raise RuntimeError(f"{command} ended early:\n{log.read()[-3000:].decode()}")
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
