"""The servers a benchmark runs on: a database and a namespace of its own, gone afterwards."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from .fleet import Fleet, wait_until

if TYPE_CHECKING:
    from queueadmin.brokers import RedisBroker


@dataclass(frozen=True, slots=True)
class Stand:
    """What a benchmark needs; its ledger is empty at the beginning."""

    broker: "RedisBroker"
    redis: Any
    database: str
    redis_url: str
    servers: dict[str, str]

    def fleet(self, *, processes: int = 3, threads: int = 8, job_log: str = "WARNING") -> Fleet:
        """Return worker processes on these servers, not started yet."""
        return Fleet(
            processes=processes,
            threads=threads,
            job_log=job_log,
            database=self.database,
            server={"REDIS_URL": self.redis_url},
            namespace=self.broker.transport.namespace,  # type: ignore[attr-defined]
        )

    def key(self, name: str) -> str:
        """Return the key of the server that holds a queue's `name`."""
        return f"{self.broker.transport.namespace}:{name}"  # type: ignore[attr-defined]


@contextmanager
def stand() -> Iterator[Stand]:
    """Set the benchmark up on DATABASE_URL and REDIS_URL, or on SQLite and the embedded server.

    On the server named by DATABASE_URL a database of its own is made and dropped; on that of
    REDIS_URL only keys under a namespace of its own are used and deleted.
    """
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="queueadmin-bench-"))
        )
        os.environ["DATA_DIR"] = str(directory)
        # Without DEBUG, as in production: with it Django formats and keeps every query.
        os.environ.update(DEBUG="0", HTTPS="0", DJANGO_SETTINGS_MODULE="benchmarks.settings")
        os.environ["SECRET_KEY"] = token_hex()
        os.environ["BENCHMARK_NAMESPACE"] = namespace = f"benchmark-{os.getpid()}"
        # An own name in the database server, too: benchmarks may run side by side.
        os.environ["BENCHMARK_DATABASE"] = f"queueadmin_benchmark_{os.getpid()}"
        if not os.environ.get("DATABASE_URL"):
            os.environ["BENCHMARK_DATABASE"] = str(directory / "db.sqlite3")
        # After the environment that the settings read.
        import django

        django.setup()
        import redis
        from django.conf import settings
        from django.db import connection
        from dramatiq import get_broker

        if settings.REDIS_URL.startswith("unix://"):
            stack.enter_context(_embedded(directory))
        client = redis.Redis.from_url(settings.REDIS_URL)
        stack.callback(client.close)
        stack.callback(_delete, client, namespace)
        wait_until(lambda: _answers(client), 10)
        name = str(settings.DATABASES["default"]["NAME"])
        connection.settings_dict["TEST"]["NAME"] = name
        connection.creation.create_test_db(verbosity=0, autoclobber=True)
        stack.callback(connection.creation.destroy_test_db, "", verbosity=0)
        broker: Any = get_broker()
        stack.callback(broker.close)
        yield Stand(
            broker,
            client,
            name,
            settings.REDIS_URL,
            {
                "database": f"{connection.vendor} {_version(connection)}",
                "server": f"Redis {client.info('server')['redis_version']}",
            },
        )


@contextmanager
def _embedded(directory: Path) -> Iterator[None]:
    from config import embedded

    embedded.prepare(directory)
    process = subprocess.Popen(  # noqa: S603  # our own command
        embedded.command(directory), stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def _answers(client: Any) -> bool:
    import redis

    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def _delete(client: Any, namespace: str) -> None:
    for key in client.scan_iter(f"{namespace}:*", count=1000):
        client.delete(key)


def _version(connection: Any) -> str:
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("SELECT sqlite_version()")
        else:
            cursor.execute("SHOW server_version")
        return str(cursor.fetchone()[0]).split()[0]
