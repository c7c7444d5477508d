"""Every call to the database and the broker in one job's life, broken in every way.

A job is enqueued in a transaction, fails, is retried, fails again, becomes a dead letter,
is requeued by hand and completes. A first run writes down each call that has to do with
the job. Then, for each of them, a process of its own lives through the same and

- dies just before the call, or just after it;
- finds that the call fails, or that it was carried out and its reply is lost.

Afterwards another process, unharmed, has to bring the job to its end, and the invariants
are checked. Threads make the order of calls vary a little, so a call is known by its text
and by how often it came before; a run that did not reach its call is reported as such.

`python -m tests.chaos.crash_points` runs all of them, `--sample 20` an even choice.
The addresses of the servers are DATABASE_URL, and REDIS_URL or QUEUE_PROVIDER and RABBITMQ_URL,
as for the site.
"""

import argparse
import itertools
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

HOWS = ("die before", "die after", "fail", "lose the reply")
DIED = 9
_PATIENCE = 25.0
# Threads may order calls otherwise now and then: a life that did not come to its call is
# lived again.
_TRIES = 3
# A call that comes again and again is broken the first two times.
_REPEATS = 2
_TABLES = re.compile(r"queueadmin_(job|attempt|deadletter|uniquekey|auditentry|holding)\b")
_local = threading.local()


class Point(NamedTuple):
    """A call of the job's life."""

    label: str
    ordinal: int


class Injector:
    """Counts the calls that matter, writes them down, and breaks one."""

    def __init__(self, point: Point | None, how: str, record: Path) -> None:
        self.point, self.how, self.record = point, how, record
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def around(self, label: str, call: Callable[[], Any], failure: Callable[[], Exception]) -> Any:
        """Make the call, or break it when it is the one."""
        if getattr(_local, "is_exempt", False):
            return call()
        with self._lock:
            self._seen[label] += 1
            point = Point(label, self._seen[label])
            if point.ordinal <= _REPEATS:
                with self.record.open("a") as record:
                    record.write(json.dumps(point) + "\n")
        if point != self.point:
            return call()
        self.record.with_suffix(".hit").touch()
        if self.how == "die before":
            os._exit(DIED)
        if self.how == "fail":
            raise failure()
        call()
        if self.how == "die after":
            os._exit(DIED)
        raise failure()

    def install(self) -> None:
        """Stand between the engine and its servers in this process."""
        import redis
        from django.db import OperationalError
        from django.db.backends.base.base import BaseDatabaseWrapper
        from django.db.backends.signals import connection_created

        from queueadmin.brokers.sending import Sender

        def broken_database() -> Exception:
            return OperationalError("broken on purpose")

        def broken_broker() -> Exception:
            return redis.ConnectionError("broken on purpose")

        def execute(proceed: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            if not _TABLES.search(sql):
                return proceed(sql, params, many, context)
            context["connection"].last_label = label = " ".join(sql.split())[:150]
            return self.around(label, lambda: proceed(sql, params, many, context), broken_database)

        connection_created.connect(
            lambda connection, **_: connection.execute_wrappers.append(execute), weak=False
        )
        commit = BaseDatabaseWrapper._commit

        def committing(wrapper: Any) -> Any:
            last = getattr(wrapper, "last_label", "")
            wrapper.last_label = ""
            if not last.startswith(("INSERT", "UPDATE", "DELETE")):
                return commit(wrapper)
            return self.around(f"COMMIT of {last}", lambda: commit(wrapper), broken_database)

        BaseDatabaseWrapper._commit = committing
        command = redis.Redis.execute_command

        def commanding(client: Any, *args: Any, **options: Any) -> Any:
            label = f"{args[0]} {_script(client, args)}".strip()
            # Heartbeats alone have nothing to do with the job.
            is_the_jobs = args[0] in ("EVAL", "EVALSHA", "HDEL", "SMEMBERS")
            if not is_the_jobs or label == "EVALSHA __heartbeats__":
                return command(client, *args, **options)
            return self.around(label, lambda: command(client, *args, **options), broken_broker)

        redis.Redis.execute_command = commanding
        send = Sender.send

        def handing_over(sender: Any, *command: Any) -> Any:
            act = lambda: send(sender, *command)  # noqa: E731
            return self.around(f"SEND {command[0]}", act, broken_broker)

        Sender.send = handing_over
        execute_pipeline = redis.client.Pipeline.execute

        def piping(pipeline: Any, *args: Any, **options: Any) -> Any:
            names = [str(entry[0][0]) for entry in pipeline.command_stack]
            label = "PIPELINE " + " ".join(dict.fromkeys(names))
            if not names:
                return execute_pipeline(pipeline, *args, **options)
            return self.around(
                label, lambda: execute_pipeline(pipeline, *args, **options), broken_broker
            )

        redis.client.Pipeline.execute = piping
        self._install_amqp(broken_broker=lambda: OSError("broken on purpose"))

    def _install_amqp(self, broken_broker: Callable[[], Exception]) -> None:
        """Stand before each method that is sent to RabbitMQ, and before each wait for an answer."""
        import amqp
        from amqp import spec

        names = {
            getattr(kind, name): f"{kind.__name__}.{name}"
            for kind in (spec.Basic, spec.Queue, spec.Exchange, spec.Confirm)
            for name in vars(kind)
            if not name.startswith("_") and name != "CLASS_ID"
        }
        send, wait = amqp.Channel.send_method, amqp.Channel.wait

        def sending(channel: Any, sig: Any, *args: Any, **options: Any) -> Any:
            if sig not in names:
                return send(channel, sig, *args, **options)
            act = lambda: send(channel, sig, *args, **options)  # noqa: E731
            return self.around(f"AMQP {names[sig]}", act, broken_broker)

        def waiting(channel: Any, method: Any, *args: Any, **options: Any) -> Any:
            first = method[0] if isinstance(method, list) else method
            if first not in names:
                return wait(channel, method, *args, **options)
            act = lambda: wait(channel, method, *args, **options)  # noqa: E731
            return self.around(f"AMQP wait for {names[first]}", act, broken_broker)

        amqp.Channel.send_method, amqp.Channel.wait = sending, waiting


def _script(client: Any, args: tuple[Any, ...]) -> str:
    """Return the keys a script is called with, without what varies from run to run."""
    if args[0] not in ("EVAL", "EVALSHA"):
        return ""
    keys = [str(key) for key in args[3 : 3 + int(args[2])]]
    return " ".join(re.sub(r"^[^:]*:|__acks__.*", "", key) for key in keys)


@contextmanager
def exempt() -> Iterator[None]:
    """Let this thread's calls through: they are the test's own."""
    _local.is_exempt = True
    try:
        yield
    finally:
        _local.is_exempt = False


class Life:
    """One job, lived through in forked processes."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder / str(number)
        self.folder.mkdir()
        self.namespace = f"life{number}-{os.getpid()}"
        self.starts = self.folder / "starts"
        self.starts.touch()
        self.committed = self.folder / "committed"
        self.mended = self.folder / "mended"
        self.calls = self.folder / "calls"
        self.calls.touch()

    def fork(self, act: Callable[[], None]) -> int | None:
        """Run `act` in a process of its own; return its exit code, None when it hung."""
        from django.db import connections

        # A connection shared by two processes serves neither.
        connections.close_all()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                log = os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(log, 1)
                os.dup2(log, 2)
                act()
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return None

    # --- In the processes -------------------------------------------------------------
    def _broker(self) -> Any:
        import dramatiq
        from django.conf import settings
        from django.utils.module_loading import import_string

        named = settings.DRAMATIQ_BROKER
        options = {**named["OPTIONS"], "namespace": self.namespace}
        broker = import_string(named["BROKER"])(**options)
        dramatiq.set_broker(broker)
        starts, mended = self.starts, self.mended

        def work() -> None:
            with starts.open("a") as file:
                file.write("start\n")
            if not mended.exists():
                raise RuntimeError("not mended yet")

        return broker, dramatiq.actor(work, queue_name="life", broker=broker)

    def live(self, point: Point | None, how: str) -> None:
        """Enqueue, run, fail, retry, die, be requeued, complete; broken at the point."""
        import dramatiq
        from django.db import Error, connection, transaction

        broker, actor = self._broker()
        Injector(point, how, self.calls).install()
        try:
            with transaction.atomic():
                message = actor.send()
                (self.folder / "job").write_text(message.message_id)
        except Error:
            connection.close()
            return
        self.committed.touch()
        worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)
        worker.start()
        self._see_to_the_end(message.message_id)
        worker.stop(timeout=5_000)
        broker.close()

    def clean(self) -> None:
        """Leave nothing on a server that others use too."""
        from django.conf import settings

        if settings.QUEUE_PROVIDER == "rabbitmq":
            import amqp

            from queueadmin.brokers.line import options_of

            with amqp.Connection(**options_of(settings.RABBITMQ_URL)) as connection:
                connection.channel().queue_delete(f"{self.namespace}.life")
                connection.channel().exchange_delete(f"{self.namespace}.pushed")

    def repair(self) -> None:
        """Bring the job to its end in a healthy process."""
        import dramatiq

        broker, _ = self._broker()
        worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)
        worker.start()
        self._see_to_the_end((self.folder / "job").read_text())
        worker.stop(timeout=5_000)
        broker.close()

    def _see_to_the_end(self, job: str) -> None:
        """Wait until the job has completed, requeueing its dead letter as staff would."""
        from django.db import Error, connection

        from queueadmin import deadletters
        from queueadmin.models import DeadLetter, Job
        from queueadmin.states import JobState

        deadline = time.monotonic() + _PATIENCE - 5
        while time.monotonic() < deadline:
            with exempt():
                state = Job.objects.filter(pk=job).values_list("state", flat=True).first()
                letter = DeadLetter.objects.filter(job_id=job, status="pending").first()
            if state == JobState.COMPLETED:
                return
            if letter is not None:
                self.mended.touch()
                try:
                    deadletters.requeue([letter.pk], by=None, reason="mended")
                except Error:
                    connection.close()
            time.sleep(0.05)
        raise AssertionError(f"the job is {state} and does not end")


def check(life: Life, code: int | None, how: str) -> list[str]:
    """Return what is wrong after a life and its repair."""
    from queueadmin.models import Attempt, DeadLetter, Job

    starts = life.starts.read_text().count("start")
    job = (life.folder / "job").read_text() if (life.folder / "job").exists() else ""
    row = Job.objects.filter(pk=job).first() if job else None
    if row is None:
        wrong = []
        if life.committed.exists():
            wrong.append("was committed and is not in the ledger")
        if starts:
            wrong.append("was not committed and ran")
        return wrong
    wrong = []
    if row.state != "completed":
        wrong.append(f"is {row.state}")
    letters = list(DeadLetter.objects.filter(job_id=job))
    if [letter.status for letter in letters] != ["recovered"]:
        wrong.append(f"has dead letters {[letter.status for letter in letters]}")
    elif letters[0].deaths != 1:
        wrong.append(f"died {letters[0].deaths} times")
    counted = Attempt.objects.filter(job_id=job).exclude(outcome="returned")
    numbers = sorted(counted.values_list("number", flat=True))
    if numbers != [1, 1, 2]:
        wrong.append(f"has attempts {numbers}")
    # Only a process that died may leave a run that nobody recorded.
    most = 4 if code == DIED else 3
    if not 3 <= starts <= most:
        wrong.append(f"was started {starts} times")
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """Run the points; return 0 when every invariant held."""
    parser = argparse.ArgumentParser(prog="tests.chaos.crash_points")
    parser.add_argument("--sample", type=int, default=0, help="so many of all, evenly chosen")
    parser.add_argument("--only", help="only calls whose text contains this")
    parser.add_argument("--verbose", action="store_true", help="name every life")
    options = parser.parse_args(arguments)
    _set_up()
    with tempfile.TemporaryDirectory(prefix="lives-") as name:
        folder = Path(name)
        unbroken: list[list[Point]] = []
        for number in range(2):
            life = Life(folder, number)
            code = life.fork(lambda life=life: life.live(None, ""))
            life.clean()
            if code != 0 or (wrong := check(life, code, "")):
                print((life.folder / "log").read_text())
                print(f"The unbroken life ended with {code}: {wrong if code == 0 else ''}")
                return 1
            lines = life.calls.read_text().splitlines()
            unbroken.append([Point(*json.loads(line)) for line in lines])
        # Some calls are made by chance only, such as those of a commit that took two batches,
        # and more of them on a busy machine.
        certain = set(unbroken[0]) & set(unbroken[1])
        points = list(dict.fromkeys(unbroken[0] + unbroken[1]))
        if options.sample:
            points = [point for point in points if point in certain]
        plan = [(point, how) for point in points for how in HOWS]
        if options.only:
            plan = [entry for entry in plan if options.only in entry[0].label]
        if options.sample and options.sample < len(plan):
            step = len(plan) / options.sample
            plan = [plan[int(index * step)] for index in range(options.sample)]
        failures, reached, missed, lives = 0, 0, 0, itertools.count(2)
        for point, how in plan:
            for _ in range(_TRIES):
                is_reached, wrong = _break(Life(folder, next(lives)), point, how)
                failures += bool(wrong)
                if options.verbose or wrong:
                    words = "; ".join(wrong) if is_reached or wrong else "not reached"
                    print(f"{how} {point.label} ({point.ordinal}) {words}", flush=True)
                if is_reached or wrong:
                    break
            reached += is_reached
            missed += not is_reached and point in certain
        print(f"{len(plan)} lives over {len(points)} calls, {reached} broken, {failures} failed")
        return 1 if failures or not reached or missed > len(plan) * 0.1 else 0


def _break(life: Life, point: Point, how: str) -> tuple[bool, list[str]]:
    """Let a job live and break a call of it; return whether it was made, and what is wrong."""
    code = life.fork(lambda: life.live(point, how))
    if (life.folder / "job").exists() and _is_open(life):
        life.fork(life.repair)
    life.clean()
    wrong = check(life, code, how)
    if wrong:
        wrong.append(f"exit {code}")
        print("    " + "\n    ".join(_tail(life)), flush=True)
    return (life.folder / "calls.hit").exists(), wrong


def _is_open(life: Life) -> bool:
    from queueadmin.models import Job

    job = (life.folder / "job").read_text()
    return Job.objects.filter(pk=job).exclude(state="completed").exists()


def _tail(life: Life) -> list[str]:
    return (life.folder / "log").read_text(errors="replace").splitlines()[-12:]


def _set_up() -> None:
    """Prepare Django with short time-outs and a migrated database; no thread is started."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.chaos.workload.settings")
    os.environ.setdefault("CHAOS_JOURNAL", "")
    import django

    django.setup()
    from datetime import timedelta

    from django.conf import settings
    from django.core.management import call_command
    from django.db import connections

    from queueadmin import dispatcher
    from queueadmin.brokers import rabbitmq
    from queueadmin.policies import Policy, fixed

    call_command("migrate", "--run-syncdb", verbosity=0)
    connections.close_all()
    policy = Policy(attempts=2, backoff=fixed(0.05))
    settings.QUEUEADMIN = {"QUEUES": {"life": policy}, "HEARTBEAT_TIMEOUT_MS": 1500}
    # The waits are what takes the time of a life, and are not what it is about.
    dispatcher.UNCONFIRMED_AFTER = timedelta(seconds=0.5)
    rabbitmq._ON_ITS_WAY = timedelta(seconds=0.5)


if __name__ == "__main__":
    sys.exit(main())
