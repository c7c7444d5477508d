"""A running `rundramatiq` with the workload's actors."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dramatiq
import psutil
import pytest
from django.db import connection

from queueadmin.brokers.base import LedgerBroker
from tests.integration.fleet import wait_until
from tests.providers import MakeBroker, QueueServer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "journal"
    path.touch()
    return path


@pytest.fixture
def broker(make_broker: MakeBroker) -> Iterator[LedgerBroker]:
    previous = dramatiq.get_broker()
    broker = make_broker()
    dramatiq.set_broker(broker)
    yield broker
    dramatiq.set_broker(previous)


@pytest.fixture
def master_arguments() -> list[str]:
    """Further options of `rundramatiq`."""
    return []


StartMaster = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start_master(
    queue_server: QueueServer, journal: Path, tmp_path: Path, broker: LedgerBroker
) -> Iterator[StartMaster]:
    """Start a `rundramatiq` and wait until its processes are ready."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.workload.settings",
        "WORKLOAD_NAMESPACE": queue_server.namespace,
        **queue_server.environment,
        "WORKLOAD_JOURNAL": str(journal),
        "WORKLOAD_DATABASE": str(connection.settings_dict["NAME"]),
        "LOG_LEVEL": "INFO",
    }
    # Its own database number was chosen for this process already.
    environment.pop("PYTEST_XDIST_WORKER", None)
    started: list[subprocess.Popen[bytes]] = []

    def start(
        *arguments: str, processes: int, threads: int, log: str = "log"
    ) -> subprocess.Popen[bytes]:
        command = ["manage.py", "rundramatiq", "-p", str(processes), "-t", str(threads)]
        with open(tmp_path / log, "wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command, *arguments],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        wait_until(lambda: (tmp_path / log).read_text().count("is ready") == processes, 30)
        return process

    yield start
    for process in started:
        children = psutil.Process(process.pid).children() if process.poll() is None else []
        process.kill()
        process.wait()
        for child in children:
            child.kill()
        psutil.wait_procs(children, timeout=10)


@pytest.fixture
def master(start_master: StartMaster, master_arguments: list[str]) -> subprocess.Popen[bytes]:
    """A running `rundramatiq` with two processes of two threads."""
    return start_master(*master_arguments, processes=2, threads=2)


@pytest.fixture
def work(broker: LedgerBroker) -> dramatiq.Actor:
    """The workload's actor, as the producer knows it."""

    @dramatiq.actor(queue_name="workload", broker=broker)
    def work(number, seconds=0.0): ...

    return work
