"""What is done to the system while it works."""

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import psutil
import psycopg

from .proxy import Mode, Proxy
from .servers import BROKER_ERRORS, PostgreSQL, Program, RabbitMQ, Redis


@dataclass(slots=True)
class Fault:
    """One fault that took place."""

    kind: str
    began: float
    ended: float = 0.0
    #: Processes it killed or froze.
    pids: frozenset[int] = frozenset()
    detail: str = ""


@dataclass(slots=True)
class Stage:
    """Everything a fault may reach."""

    rng: random.Random
    masters: list[Program]
    scheduler: Program
    broker: Redis | RabbitMQ
    broker_proxy: Proxy
    postgresql: PostgreSQL | None
    database_proxy: Proxy | None
    record: list[Fault] = field(default_factory=list)

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes that run now."""
        found = []
        for master in self.masters:
            if master.is_running() and master.process is not None:
                with contextlib.suppress(psutil.Error):
                    found += psutil.Process(master.process.pid).children()
        return [process for process in found if _is_alive(process)]

    def leader(self) -> psutil.Process | None:
        """Return the worker process whose dispatcher leads."""
        if self.postgresql is None:
            return None
        try:
            with psycopg.connect(self.postgresql.url, connect_timeout=2) as connection:
                row = connection.execute(
                    "SELECT holder FROM queueadmin_lease WHERE role = 'dispatcher'"
                ).fetchone()
        except psycopg.Error:
            return None
        pid = row[0].split(":")[-2] if row else ""
        return next((found for found in self.workers() if str(found.pid) == pid), None)

    def run(self, name: str) -> Fault:
        """Do it, undo it where it lasts, and write it down."""
        fault = Fault(name, time.monotonic())
        FAULTS[name](self, fault)
        fault.ended = time.monotonic()
        self.record.append(fault)
        return fault

    def possible(self) -> list[str]:
        """Return the names of the faults that this stage has something for."""
        names = list(FAULTS)
        if self.postgresql is None:
            names = [name for name in names if "PostgreSQL" not in name]
        return names

    def mend(self) -> None:
        """Undo whatever is still wrong, so that the system is on its own from here."""
        for process in self.workers():
            with contextlib.suppress(psutil.Error):
                process.resume()
        for proxy in (self.broker_proxy, self.database_proxy):
            if proxy is not None:
                proxy.become(Mode.OPEN)
        for program in (*self.masters, self.scheduler):
            if not program.is_running():
                program.start()


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return False


def _family(process: psutil.Process) -> set[int]:
    """Return a worker's number and those of the processes that run a job apart for it."""
    found = {process.pid}
    with contextlib.suppress(psutil.Error):
        found |= {child.pid for child in process.children(recursive=True)}
    return found


def _kill(stage: Stage, fault: Fault, victims: list[psutil.Process]) -> None:
    fault.pids = frozenset().union(*map(_family, victims))
    for victim in victims:
        with contextlib.suppress(psutil.Error):
            victim.kill()


def kill_worker(stage: Stage, fault: Fault) -> None:
    """Kill -9 a worker process; its supervisor replaces it."""
    if workers := stage.workers():
        _kill(stage, fault, [stage.rng.choice(workers)])


def kill_leader(stage: Stage, fault: Fault) -> None:
    """Kill -9 the process whose dispatcher leads."""
    if leader := stage.leader():
        _kill(stage, fault, [leader])


def kill_master(stage: Stage, fault: Fault) -> None:
    """Kill -9 a supervisor; its workers stop, and somebody starts it again."""
    master = stage.rng.choice(stage.masters)
    if not master.is_running() or master.process is None:
        return
    children = psutil.Process(master.process.pid).children()
    fault.pids = frozenset().union(*map(_family, children))
    master.process.kill()
    master.process.wait()
    time.sleep(1)
    master.start()


def lose_host(stage: Stage, fault: Fault) -> None:
    """Kill -9 a supervisor with all its workers: only their silence tells it to the others."""
    master = stage.rng.choice(stage.masters)
    if not master.is_running() or master.process is None:
        return
    children = psutil.Process(master.process.pid).children()
    master.process.kill()
    _kill(stage, fault, children)
    master.process.wait()
    time.sleep(stage.rng.uniform(1, 4))
    master.start()


def kill_scheduler(stage: Stage, fault: Fault) -> None:
    """Kill -9 the scheduler, and start it again."""
    if stage.scheduler.process is not None:
        stage.scheduler.process.kill()
        stage.scheduler.process.wait()
    stage.scheduler.start()


def restart_master(stage: Stage, fault: Fault) -> None:
    """Stop a supervisor with SIGTERM under load and start it again, as a deployment does."""
    master = stage.rng.choice(stage.masters)
    if master.is_running():
        master.end()
        master.start()


def freeze_worker(stage: Stage, fault: Fault) -> None:
    """SIGSTOP a worker process for a while: shorter or longer than the heartbeat time-out."""
    if workers := stage.workers():
        victim = stage.rng.choice(workers)
        fault.pids = frozenset({victim.pid})
        seconds = stage.rng.choice([2, 5, 14])
        fault.detail = f"{seconds} s"
        with contextlib.suppress(psutil.Error):
            victim.suspend()
            time.sleep(seconds)
            victim.resume()


def flush_broker(stage: Stage, fault: Fault) -> None:
    """FLUSHALL, or its like."""
    with contextlib.suppress(*BROKER_ERRORS):
        stage.broker.flush()


def kill_broker(stage: Stage, fault: Fault) -> None:
    """Kill -9 the message server and start it again a little later."""
    stage.broker.kill()
    time.sleep(stage.rng.uniform(0.5, 4))
    stage.broker.start()


def restart_broker(stage: Stage, fault: Fault) -> None:
    """Restart the message server in an orderly way."""
    stage.broker.stop()
    stage.broker.start()


def fill_broker(stage: Stage, fault: Fault) -> None:
    """Let the message server refuse every write for a while."""
    with contextlib.suppress(*BROKER_ERRORS):
        stage.broker.refuse_writes(refuse=True)
        time.sleep(stage.rng.uniform(1, 4))
    with contextlib.suppress(*BROKER_ERRORS):
        stage.broker.refuse_writes(refuse=False)


def drop_broker_clients(stage: Stage, fault: Fault) -> None:
    """Close every client connection at the message server."""
    with contextlib.suppress(*BROKER_ERRORS):
        stage.broker.drop_clients()


def kill_postgresql(stage: Stage, fault: Fault) -> None:
    """Crash PostgreSQL and start it again a little later."""
    assert stage.postgresql is not None
    stage.postgresql.kill()
    time.sleep(stage.rng.uniform(0.5, 3))
    stage.postgresql.start()


def restart_postgresql(stage: Stage, fault: Fault) -> None:
    """Restart PostgreSQL in an orderly way."""
    assert stage.postgresql is not None
    stage.postgresql.stop()
    stage.postgresql.start()


def drop_postgresql_backends(stage: Stage, fault: Fault) -> None:
    """Terminate every connection's backend, in the middle of whatever it does."""
    assert stage.postgresql is not None
    with contextlib.suppress(psycopg.Error), psycopg.connect(stage.postgresql.url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )


def hold_rows_of_postgresql(stage: Stage, fault: Fault) -> None:
    """Lock the table of jobs for a while, as a careless migration does."""
    assert stage.postgresql is not None
    with contextlib.suppress(psycopg.Error), psycopg.connect(stage.postgresql.url) as connection:
        connection.execute("SET lock_timeout = '5s'")
        connection.execute("LOCK TABLE queueadmin_job IN EXCLUSIVE MODE")
        time.sleep(stage.rng.uniform(1, 4))


def _through(proxy: Proxy, mode: Mode, stage: Stage, fault: Fault) -> None:
    seconds = stage.rng.uniform(0.5, 5)
    fault.detail = f"{seconds:.1f} s"
    proxy.become(mode)
    time.sleep(seconds)
    proxy.become(Mode.OPEN)


def _broker_line(mode: Mode) -> Callable[[Stage, Fault], None]:
    return lambda stage, fault: _through(stage.broker_proxy, mode, stage, fault)


def _database_line(mode: Mode) -> Callable[[Stage, Fault], None]:
    def act(stage: Stage, fault: Fault) -> None:
        assert stage.database_proxy is not None
        _through(stage.database_proxy, mode, stage, fault)

    return act


def hostile_messages(stage: Stage, fault: Fault) -> None:
    """Put what is no message, or a hostile one, into the queues as they are on the wire."""
    good = (
        b'{"queue_name":"free","actor_name":"%s","args":[],"kwargs":{},"options":{%s},'
        b'"message_id":"%s","message_timestamp":1}'
    )
    with contextlib.suppress(*BROKER_ERRORS):
        for queue in ("free", "limited"):
            for data in (
                b"\x00\xff not json",
                b"{}",
                b"[" * 5000,
                good % (b"free", b'"throws":"x","retries":"many"', str(uuid4()).encode()),
                good % (b"nobody_knows_me", b"", str(uuid4()).encode()),
                good % (b"free", b'"time_limit":{}', str(uuid4()).encode()),
            ):
                name = str(uuid4())
                name = stage.rng.choice([name, f"{name}:1"])
                stage.broker.put(queue, name, data)


#: Done with quiet before and after, so that how soon the jobs of a killed process run again
#: says something about the fleet, not about the fault before.
KILLS = frozenset({"kill worker", "kill worker again", "kill leader"})
#: The same for processes of which only their silence is noticed.
SILENCES = frozenset({"lose host", "freeze worker"})
#: How long before a kill nothing else may happen to the servers, in seconds.
QUIET_SECONDS = 10.0

FAULTS: dict[str, Callable[[Stage, Fault], Any]] = {
    "kill worker": kill_worker,
    "kill worker again": kill_worker,
    "kill leader": kill_leader,
    "kill supervisor": kill_master,
    "lose host": lose_host,
    "kill scheduler": kill_scheduler,
    "restart supervisor": restart_master,
    "freeze worker": freeze_worker,
    "flush broker": flush_broker,
    "kill broker": kill_broker,
    "restart broker": restart_broker,
    "fill broker": fill_broker,
    "drop broker clients": drop_broker_clients,
    "cut broker line": _broker_line(Mode.CUT),
    "slow broker line": _broker_line(Mode.SLOW),
    "silent broker line": _broker_line(Mode.SILENT),
    "lose replies of broker": _broker_line(Mode.LOSE_REPLIES),
    "kill PostgreSQL": kill_postgresql,
    "restart PostgreSQL": restart_postgresql,
    "drop PostgreSQL backends": drop_postgresql_backends,
    "hold PostgreSQL table": hold_rows_of_postgresql,
    "cut PostgreSQL line": _database_line(Mode.CUT),
    "slow PostgreSQL line": _database_line(Mode.SLOW),
    "silent PostgreSQL line": _database_line(Mode.SILENT),
    "lose replies of PostgreSQL": _database_line(Mode.LOSE_REPLIES),
    "hostile messages": hostile_messages,
}
