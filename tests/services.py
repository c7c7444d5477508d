"""The services tests may use when they are there, and the second run of the suite on them.

`python -m tests.services PYTEST-ARGUMENTS` runs pytest with PostgreSQL and Redis in place
of SQLite and the embedded Valkey, when both are reachable.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache

#: Name of a marker, and the address of its service.
URLS = {
    "postgresql": os.environ.get(
        "TEST_POSTGRESQL_URL", "postgres://postgres@127.0.0.1:5432/postgres"
    ),
    "redis_server": os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/9"),
    "rabbitmq": os.environ.get("TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672"),
}
#: Under continuous integration a missing service is a failure, not a reason to skip.
IS_REQUIRED = os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def _ask_postgresql(url: str) -> None:
    import psycopg  # imported only where the service is asked for

    psycopg.connect(url.replace("postgres://", "postgresql://", 1), connect_timeout=2).close()


def _ask_redis(url: str) -> None:
    import redis  # imported only where the service is asked for

    redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2).ping()


def _ask_rabbitmq(url: str) -> None:
    import socket
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 5672), timeout=2) as line:
        line.settimeout(2)
        line.sendall(b"AMQP\x00\x00\x09\x01")
        if not line.recv(1):
            raise ConnectionError("closed the connection at once")


_ASK: dict[str, Callable[[str], None]] = {
    "postgresql": _ask_postgresql,
    "redis_server": _ask_redis,
    "rabbitmq": _ask_rabbitmq,
}


@cache
def problem_with(name: str) -> str | None:
    """Return why a service cannot be used, or None when it answers."""
    # On a busy machine one that is there may miss the first calls; it speaks for a whole run.
    for pause in (0.5, 2.0, 5.0, None):
        try:
            _ASK[name](URLS[name])
            return None
        except Exception as error:  # whatever its client raises, the service cannot be used
            problem = f"{name} is not reachable: {error}"
            if pause is None or not IS_REQUIRED:
                break
            time.sleep(pause)
    return problem


def main(arguments: list[str]) -> int:
    """Run pytest on PostgreSQL and Redis; return its exit code."""
    problems = [found for name in ("postgresql", "redis_server") if (found := problem_with(name))]
    if problems:
        sys.stdout.write(f"No second run on PostgreSQL and Redis: {'; '.join(problems)}\n")
        return int(IS_REQUIRED)
    environment = {
        **os.environ,
        "DATABASE_URL": URLS["postgresql"],
        "REDIS_URL": URLS["redis_server"],
    }
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
