"""A running `rundramatiq` with the workload's actors."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dramatiq
import psutil
import pytest
from django.db import connection

from queueadmin.brokers import RedisBroker
from tests.integration.fleet import wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "journal"
    path.touch()
    return path


@pytest.fixture
def broker(redis_url: str) -> Iterator[RedisBroker]:
    previous = dramatiq.get_broker()
    broker = RedisBroker(url=redis_url, namespace="workload")
    dramatiq.set_broker(broker)
    yield broker
    dramatiq.set_broker(previous)
    broker.close()


@pytest.fixture
def master_arguments() -> list[str]:
    """Further options of `rundramatiq`."""
    return []


@pytest.fixture
def master(
    redis_url: str,
    journal: Path,
    tmp_path: Path,
    broker: RedisBroker,
    master_arguments: list[str],
) -> Iterator[subprocess.Popen[bytes]]:
    """A running `rundramatiq` with two processes of two threads."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.workload.settings",
        "REDIS_URL": redis_url,
        "WORKLOAD_JOURNAL": str(journal),
        "WORKLOAD_DATABASE": str(connection.settings_dict["NAME"]),
        "LOG_LEVEL": "INFO",
    }
    # Its own database number was chosen for this process already.
    environment.pop("PYTEST_XDIST_WORKER", None)
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "rundramatiq", "-p", "2", "-t", "2", *master_arguments],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: (tmp_path / "log").read_text().count("is ready") == 2, 30)
        yield process
    finally:
        children = psutil.Process(process.pid).children() if process.poll() is None else []
        process.kill()
        process.wait()
        for child in children:
            child.kill()
        psutil.wait_procs(children, timeout=10)


@pytest.fixture
def work(broker: RedisBroker) -> dramatiq.Actor:
    """The workload's actor, as the producer knows it."""

    @dramatiq.actor(queue_name="workload", broker=broker)
    def work(number, seconds=0.0): ...

    return work
