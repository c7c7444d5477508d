"""Runs the fault suite once and prints the verdict; see `tests.chaos`."""

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from . import plain
from .faults import KILLS, QUIET_SECONDS, SILENCES, Stage
from .journal import Journal
from .proxy import Proxy
from .servers import BROKERS, PostgreSQL, Program, Redis, free_port
from .verdict import Outcome, check_suite, judge

ROOT = Path(__file__).resolve().parents[2]
CLEAN_SECONDS = 60.0
_ORDERS_PER_SECOND = 25
#: How long nothing else happens after a fault whose consequences are timed.
_RESCUE_SECONDS = dict.fromkeys(KILLS, 6.0) | dict.fromkeys(SILENCES, 15.0)
_OUTCOMES = """
SELECT o.number, o.mode, o.job, COALESCE(j.state, ''),
       (SELECT COUNT(*) FROM queueadmin_attempt a WHERE a.job_id = o.job AND a.outcome IN
        ('completed', 'retrying', 'dead')),
       (SELECT COUNT(*) FROM queueadmin_deadletter d WHERE d.job_id = o.job
        AND d.status = 'pending'),
       COALESCE((SELECT d.died_by FROM queueadmin_deadletter d WHERE d.job_id = o.job), '')
FROM workload_order o LEFT JOIN queueadmin_job j ON j.id = o.job
"""
_UNSTARTED = """
SELECT COUNT(*) FROM queueadmin_job WHERE queue IN ('free', 'limited') AND actor <> 'nobody_knows_me'
AND state IN ('waiting', 'active', 'retrying', 'scheduled')
"""


def main() -> int:
    """Run; return 0 when every guarantee held."""
    parser = argparse.ArgumentParser(prog="tests.chaos")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    parser.add_argument("--broker", choices=sorted(BROKERS), default="redis")
    parser.add_argument(
        "--poison-every", type=int, default=400, help="orders per poison pill; 0 for none"
    )
    parser.add_argument(
        "--quick", action="store_true", help="no quiet around kills, so no rescue is timed"
    )
    parser.add_argument(
        "--system",
        choices=["queueadmin", "dramatiq"],
        default="queueadmin",
        help="dramatiq: plain, with django-dramatiq, for comparison; PostgreSQL and Redis only",
    )
    parser.add_argument(
        "--keep",
        type=Path,
        help="copy journals and logs to this new folder; what did not hold goes to build/chaos",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        kind = PlainRun if options.system == "dramatiq" else Run
        run = kind(Path(name), options.seed, options.database, options.broker, options.poison_every)
        held = False
        try:
            held = run.go(options.minutes * 60, is_timed=not options.quick) == 0
        finally:
            run.close()
            # What happens once in many runs can only be understood from that run.
            if options.keep or not held:
                run.keep(options.keep or Path("build/chaos", f"{options.seed}-{os.getpid()}"))
        return 0 if held else 1


class Run:
    """One run in a folder of its own."""

    settings = "tests.chaos.workload.settings"
    scheduler_command = ("manage.py", "runscheduler")

    def __init__(
        self, folder: Path, seed: int, database: str, broker: str, poison_every: int
    ) -> None:
        print(f"seed {seed} on {database} and {broker}", flush=True)
        self.folder, self.seed = folder, seed
        self.rng = random.Random(seed)
        self.journal = folder / "journal"
        self.journal.touch()
        self.broker = BROKERS[broker](folder)
        self.broker.start()
        self.broker_proxy = Proxy(free_port(), self.broker.port)
        self.broker_proxy.start()
        self.postgresql: PostgreSQL | None = None
        self.database_proxy: Proxy | None = None
        self.database = folder / "db.sqlite3"
        url = f"sqlite:///{self.database}"
        if database == "postgresql":
            self.postgresql = PostgreSQL(folder)
            self.postgresql.start()
            self.database_proxy = Proxy(free_port(), self.postgresql.port)
            self.database_proxy.start()
            url = f"postgres://postgres@127.0.0.1:{self.database_proxy.port}/postgres"
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": self.settings,
            "DATA_DIR": str(folder),
            "DEBUG": "1",
            "HTTPS": "0",
            "LOG_LEVEL": "INFO",
            "DATABASE_URL": url,
            **self.broker.environment(self.broker_proxy.port),
            "CHAOS_JOURNAL": str(self.journal),
        }
        python = sys.executable
        work = [python, "manage.py", "rundramatiq", "-p", "2", "-t", "4", "--queues"]
        work += ["free", "limited"]
        skewed = {"CHAOS_SKEW": "90", "PYTHONPATH": str(Path(__file__).parent / "skew")}
        self.masters = [
            Program("workers-1", work, self.environment, folder),
            # Another host, whose clock is 90 seconds ahead.
            Program("workers-2", work, self.environment | skewed, folder),
        ]
        self.scheduler = Program(
            "scheduler", [python, *self.scheduler_command], self.environment, folder
        )
        producer = ["-m", "tests.chaos.workload.producer", str(seed)]
        producer += [str(_ORDERS_PER_SECOND), str(poison_every)]
        self.producer = Program("producer", [python, *producer], self.environment, folder)

    @property
    def programs(self) -> list[Program]:
        return [*self.masters, self.scheduler, self.producer]

    def go(self, seconds: float, *, is_timed: bool) -> int:
        """Migrate, start everything, do faults, wait until clean, judge."""
        self._manage("migrate", "--run-syncdb", "--verbosity", "0")
        for program in self.programs:
            program.start()
        stage = Stage(
            self.rng,
            self.masters,
            self.scheduler,
            self.broker,
            self.broker_proxy,
            self.postgresql,
            self.database_proxy,
        )
        self._wait_for_first_effects()
        self._do_faults(stage, seconds, is_timed=is_timed)
        stage.mend()
        mended = time.monotonic()
        self.producer.end()
        return self._conclude(stage, mended)

    def _conclude(self, stage: Stage, mended: float) -> int:
        clean_after = self._wait_until_clean(mended)
        verdict = judge(
            self.seed,
            Journal.read(self.journal),
            self._outcomes(),
            stage.record,
            clean_after,
            CLEAN_SECONDS,
        )
        passed = {self.broker.name: self.broker_proxy.passed}
        if self.database_proxy is not None:
            passed["PostgreSQL"] = self.database_proxy.passed
        verdict.problems += check_suite(stage.record, passed, verdict.committed)
        for line in (*verdict.lines(), *verdict.problems[:30]):
            print(line)
        print(json.dumps(verdict.as_json()))
        return 0 if verdict.holds else 1

    def _manage(self, *arguments: str) -> None:
        command = [sys.executable, "manage.py", *arguments]
        subprocess.run(command, cwd=ROOT, env=self.environment, check=True, timeout=120)

    def _wait_for_first_effects(self) -> None:
        deadline = time.monotonic() + 60
        while b'"end"' not in self.journal.read_bytes():
            if time.monotonic() > deadline:
                raise RuntimeError("no job has run within a minute; see the logs with --keep")
            time.sleep(0.2)

    def _do_faults(self, stage: Stage, seconds: float, *, is_timed: bool) -> None:
        """Do each kind once in a random order, and then again, until the time is up."""
        end = time.monotonic() + seconds
        waiting: list[str] = []
        while time.monotonic() < end:
            if not waiting:
                waiting = stage.possible()
                self.rng.shuffle(waiting)
            kind = waiting.pop()
            is_measured = is_timed and kind in KILLS | SILENCES
            if is_measured:
                time.sleep(QUIET_SECONDS)
            fault = stage.run(kind)
            pids = ", ".join(map(str, sorted(fault.pids)))
            detail = " ".join(filter(None, [fault.detail, pids]))
            print(f"{fault.began:.1f} {fault.kind} {detail}", flush=True)
            pause = _RESCUE_SECONDS[kind] if is_measured else self.rng.uniform(0.5, 8)
            self._pause(min(pause, max(end - time.monotonic(), 0)))

    def _pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def _wait_until_clean(self, since: float) -> float | None:
        """Return how long it took until nothing is left to do, scheduled jobs included."""
        while time.monotonic() - since < CLEAN_SECONDS:
            if self._query(_UNSTARTED)[0][0] == 0:
                return time.monotonic() - since
            time.sleep(0.2)
        return None

    def _outcomes(self) -> list[Outcome]:
        return [Outcome(*row) for row in self._query(_OUTCOMES)]

    def _query(self, sql: str) -> list[tuple]:
        if self.postgresql is not None:
            with psycopg.connect(self.postgresql.url, connect_timeout=5) as connection:
                return connection.execute(sql).fetchall()
        with sqlite3.connect(self.database, timeout=20) as connection:
            return connection.execute(sql).fetchall()

    def keep(self, folder: Path) -> None:
        """Copy what explains a verdict."""
        folder.mkdir(parents=True)
        for path in (*self.folder.glob("*.log"), self.journal):
            if path.exists():
                (folder / path.name).write_bytes(path.read_bytes())

    def close(self) -> None:
        """End every process that was started."""
        for program in self.programs:
            program.end(20)
        for proxy in (self.broker_proxy, self.database_proxy):
            if proxy is not None:
                proxy.stop()
        self.broker.kill()
        if self.postgresql is not None:
            self.postgresql.kill()


class PlainRun(Run):
    """The same on plain Dramatiq: nothing is judged, only counted."""

    settings = "tests.chaos.workload.plain_settings"
    # It has none.
    scheduler_command = ("-c", "import time; time.sleep(1e9)")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if not isinstance(self.broker, Redis):
            raise SystemExit("The comparison with plain Dramatiq runs on Redis.")
        # Plain Dramatiq's list has no priority in its name.
        self.broker.list_suffix = ""

    def _pause(self, seconds: float) -> None:
        # Its supervisor ends when a worker dies; a service manager starts it again.
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for master in self.masters:
                if not master.is_running():
                    master.start()
            time.sleep(min(1.0, max(end - time.monotonic(), 0)))

    def _conclude(self, stage: Stage, mended: float) -> int:
        while True:
            orders = self._query("SELECT number, mode, job FROM workload_order")
            journal = Journal.read(self.journal)
            dead = plain.dead_letters(self.broker.client)
            waited = time.monotonic() - mended
            if not plain.unfinished(orders, journal, dead) or waited > plain.PATIENCE_SECONDS:
                break
            self._pause(2)
        print(plain.losses(self.seed, orders, journal, dead, waited).as_json())
        return 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
