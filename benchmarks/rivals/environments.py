"""Job systems in Python, each installed in an environment of its own."""

import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ..fleet import ROOT
from ..stand import Stand
from . import PAYLOAD, PROCESSES, THREADS, started

#: Kept between runs; `make clean` removes it.
_FOLDER = ROOT / "build" / "rivals"
_HERE = Path(__file__).parent


class _Installed:
    """A rival with its packages in a virtual environment, and its program beside this file."""

    name: str
    share: float
    packages: tuple[str, ...]
    #: Its module here: run with JOBS and PAYLOAD it enqueues.
    program: str

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._bin = _environment(self.name, self.packages)
        self._queue = f"benchmark-{os.getpid()}-{self.name}"
        self._environment = {
            **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
            "REDIS_URL": stand.redis_url,
            "RIVAL_DATABASE_URL": _on(os.environ.get("DATABASE_URL", ""), stand.database),
            "RIVAL_QUEUE": self._queue,
        }
        self.prepare()

    def prepare(self) -> None:
        """Make its tables, if it has any."""

    def fill(self, jobs: int) -> None:
        self._run("python", f"{self.program}.py", str(jobs), PAYLOAD)

    @contextmanager
    def work(self) -> Iterator[None]:
        with ExitStack() as stack:
            for command in self.commands():
                program = str(self._bin / command[0])
                stack.enter_context(started([program, *command[1:]], self._environment, _HERE))
            yield

    def commands(self) -> list[list[str]]:
        """Return what starts the workers."""
        raise NotImplementedError

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), *arguments]
        subprocess.run(  # noqa: S603
            command, cwd=_HERE, env=self._environment, check=True, stdout=subprocess.DEVNULL
        )

    def _count(self, statement: str) -> int:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(statement)
            return int(cursor.fetchone()[0])

    def close(self) -> None:
        for key in self._stand.redis.scan_iter(f"*{self._queue}*", count=1000):
            self._stand.redis.delete(key)


class CeleryResults(_Installed):
    """Celery on Redis that keeps its results in Django's database."""

    name, share, program = "celery-results", 0.1, "celery_app"
    packages = ("celery[redis]==5.7.0", "django-celery-results==2.6.0", "django>=5.2,<5.3",
                "psycopg[binary]", "django-environ")  # fmt: skip
    _filled = 0

    def prepare(self) -> None:
        self._environment["DJANGO_SETTINGS_MODULE"] = "celery_settings"
        self._run("python", "-m", "django", "migrate", "--verbosity", "0", "--pythonpath", ".")

    def fill(self, jobs: int) -> None:
        self._filled += jobs
        super().fill(jobs)

    def commands(self) -> list[list[str]]:
        worker = ["celery", "-A", "celery_app", "worker", "-P", "threads", "-c", str(THREADS),
                  "-l", "WARNING", "-Q", self._queue]  # fmt: skip
        return [[*worker, "-n", f"rival{number}@%h"] for number in range(PROCESSES)]

    def left(self) -> int:
        return self._filled - self._count("SELECT COUNT(*) FROM django_celery_results_taskresult")


class Procrastinate(_Installed):
    """Procrastinate, whose queue is PostgreSQL."""

    name, share, program = "procrastinate", 0.1, "procrastinate_app"
    packages = ("procrastinate==3.10.0", "psycopg[binary,pool]")

    def prepare(self) -> None:
        self._environment["PYTHONPATH"] = str(_HERE)
        self._run("procrastinate", "--app", "procrastinate_app.app", "schema", "--apply")

    def seconds_singly(self, jobs: int) -> float:
        """Enqueue job by job, each in its transaction, and return how long that took."""
        command = [str(self._bin / "python"), "procrastinate_app.py", str(jobs), PAYLOAD, "singly"]
        done = subprocess.run(  # noqa: S603
            command, cwd=_HERE, env=self._environment, check=True, capture_output=True, text=True
        )
        return float(done.stdout.splitlines()[-1])

    def commands(self) -> list[list[str]]:
        worker = ["procrastinate", "--app", "procrastinate_app.app", "worker", "--concurrency",
                  str(THREADS), "--queues", self._queue]  # fmt: skip
        return [worker] * PROCESSES

    def left(self) -> int:
        return self._count(
            "SELECT COUNT(*) FROM procrastinate_jobs WHERE status IN ('todo','doing')"
        )


class Rq(_Installed):
    """RQ, a process per job; as many workers as the others have threads."""

    name, share, program = "rq", 0.1, "rq_app"
    packages = ("rq==3.0.0",)

    def commands(self) -> list[list[str]]:
        self._environment["PYTHONPATH"] = str(_HERE)
        workers = str(PROCESSES * THREADS)
        return [["rq", "worker-pool", "--url", self._stand.redis_url, "-n", workers, "-q",
                 self._queue]]  # fmt: skip

    def left(self) -> int:
        redis: Any = self._stand.redis
        return int(redis.llen(f"rq:queue:{self._queue}")) + int(
            redis.zcard(f"rq:wip:{self._queue}")
        )


class Huey(_Installed):
    """Huey on Redis, which keeps nothing of a job that ended without a result."""

    name, share, program = "huey", 0.3, "huey_app"
    packages = ("huey==3.5.4", "redis")

    def commands(self) -> list[list[str]]:
        self._environment["PYTHONPATH"] = str(_HERE)
        consumer = ["huey_consumer", "huey_app.huey", "-w", str(THREADS), "-k", "thread", "-q"]
        return [consumer] * PROCESSES

    def left(self) -> int:
        name = "".join(each for each in self._queue if each.isalnum())
        return int(self._stand.redis.llen(f"huey.redis.{name}"))

    def close(self) -> None:
        name = "".join(each for each in self._queue if each.isalnum())
        for key in self._stand.redis.scan_iter(f"huey*{name}*", count=1000):
            self._stand.redis.delete(key)


#: All that need no database of one kind, and those that need PostgreSQL.
ANYWHERE: tuple[type[_Installed], ...] = (Rq, Huey)
ON_POSTGRESQL: tuple[type[_Installed], ...] = (CeleryResults, Procrastinate)


def _environment(name: str, packages: tuple[str, ...]) -> Path:
    """Return the folder of programs of an environment with these packages."""
    folder = _FOLDER / name
    stamp = folder / "installed"
    wanted = "\n".join(packages)
    if not stamp.exists() or stamp.read_text() != wanted:
        venv.create(folder, with_pip=True, clear=True)
        command = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", *packages]
        subprocess.run(command, check=True, stdout=sys.stderr)  # noqa: S603
        stamp.write_text(wanted)
    return folder / "bin"


def _on(url: str, database: str) -> str:
    """Return an address with another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}")) if url else ""
