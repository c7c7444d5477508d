"""Django's Tasks framework on our backend: what its documentation promises, and the ledger."""

import asyncio
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
import time_machine
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group
from django.core import checks
from django.core.exceptions import ValidationError
from django.db import OperationalError, connection, transaction
from django.test import override_settings
from django.utils import timezone

from queueadmin import deadletters, jobs
from queueadmin.exceptions import InvalidMessage
from queueadmin.models import DeadLetter, Job, MinuteStatistic
from queueadmin.policies import Policy, fixed
from queueadmin.states import DeathCause, JobState
from queueadmin.task_backend import UnkeepableResult
from queueadmin.testing import run_jobs

try:
    from django.tasks import TaskResultStatus, task_backends
    from django.tasks.base import task
    from django.tasks.exceptions import (
        InvalidTask,
        TaskResultDoesNotExist,
        TaskResultMismatch,
    )
    from django.tasks.signals import task_enqueued, task_finished, task_started
except ModuleNotFoundError:
    from django_tasks import TaskResultStatus, task_backends
    from django_tasks.base import task
    from django_tasks.exceptions import InvalidTaskError as InvalidTask
    from django_tasks.exceptions import TaskResultDoesNotExist, TaskResultMismatch
    from django_tasks.signals import task_enqueued, task_finished, task_started

BACKEND = "queueadmin.tasks.DramatiqBackend"
TASKS = {
    "default": {"BACKEND": BACKEND, "QUEUES": ["default", "reports"]},
    "quick": {"BACKEND": BACKEND, "QUEUES": [], "OPTIONS": {"max_retries": 0}},
}
with override_settings(TASKS=TASKS):
    # Tasks are checked against the settings as their module is imported.
    from tests.queueadmin import host_tasks


@pytest.fixture(autouse=True)
def backend(broker, settings):
    """Our backend under the name that all tasks use, and policies for its queues."""
    settings.QUEUEADMIN = {
        "QUEUES": {
            "default": Policy(attempts=1, time_limit=30),
            "reports": Policy(attempts=3, backoff=fixed(5), time_limit=30),
        }
    }
    settings.TASKS = TASKS
    host_tasks.seen.clear()
    host_tasks.failures.clear()
    return task_backends["default"]


@pytest.mark.django_db
class TestEnqueue:
    def test_a_task_is_a_job_of_the_ledger_under_its_path(self):
        result = host_tasks.add.enqueue(1, second=2)

        job = Job.objects.get(pk=result.id)
        assert (job.actor, job.queue) == ("tests.queueadmin.host_tasks.add", "default")
        assert (job.state, job.max_attempts) == (JobState.WAITING, 1)
        assert (result.status, result.is_finished, result.attempts) == (
            TaskResultStatus.READY,
            False,
            0,
        )
        assert (result.args, result.kwargs, result.backend) == ([1], {"second": 2}, "default")
        assert abs(result.enqueued_at - job.enqueued_at) < timedelta(seconds=1)
        with pytest.raises(ValueError, match="not finished"):
            result.return_value  # noqa: B018  # a property that raises

    def test_its_result_is_there_once_it_ran(self):
        result = host_tasks.add.enqueue(1, 2)
        run_jobs()
        result.refresh()

        assert (result.status, result.return_value) == (TaskResultStatus.SUCCESSFUL, 3)
        assert result.is_finished
        assert result.attempts == 1
        assert result.enqueued_at <= result.started_at <= result.finished_at
        assert result.started_at == result.last_attempted_at

    def test_a_task_that_returns_nothing_is_successful(self):
        result = host_tasks.echo.enqueue()
        run_jobs()

        assert host_tasks.echo.get_result(result.id).return_value == [[], {}]

    def test_arguments_are_as_json_has_them(self):
        result = host_tasks.echo.enqueue((1, 2), b"text", key={"a": (3,)})
        run_jobs()
        result.refresh()

        assert result.return_value == [[[1, 2], "text"], {"key": {"a": [3]}}]
        assert (result.args, result.kwargs) == ([[1, 2], "text"], {"key": {"a": [3]}})

    def test_what_json_cannot_express_is_refused_and_leaves_no_job(self):
        with pytest.raises(TypeError):
            host_tasks.echo.enqueue(timezone.now())

        assert not Job.objects.exists()

    def test_arguments_that_do_not_fit_are_refused(self):
        with pytest.raises(InvalidMessage, match="needs name"):
            host_tasks.tell.enqueue()
        with pytest.raises(InvalidMessage, match="first must be int"):
            host_tasks.add.enqueue("one")

    def test_queue_and_priority_are_the_jobs(self):
        result = host_tasks.report.enqueue()
        other = host_tasks.report.using(priority=-1, queue_name="default").enqueue()

        job, late = Job.objects.get(pk=result.id), Job.objects.get(pk=other.id)
        assert (job.queue, job.get_priority_display(), job.max_attempts) == ("reports", "high", 3)
        assert (late.queue, late.get_priority_display()) == ("default", "low")
        assert host_tasks.report.get_result(result.id).task == host_tasks.report
        found = host_tasks.report.get_result(other.id).task
        assert (found.priority, found.queue_name) == (-1, "default")

    def test_a_deferred_task_waits_for_its_time(self):
        at = timezone.now() + timedelta(days=400)
        result = host_tasks.add.using(run_after=at).enqueue(1)

        assert run_jobs() == 0
        assert Job.objects.get(pk=result.id).state == JobState.SCHEDULED
        assert host_tasks.add.get_result(result.id).task.run_after == at
        assert host_tasks.add.get_result(result.id).status == TaskResultStatus.READY
        with time_machine.travel(at + timedelta(seconds=1)):
            assert run_jobs() == 1

    def test_a_deferred_task_whose_time_has_passed_runs_at_once(self):
        host_tasks.add.using(run_after=timezone.now() - timedelta(days=1)).enqueue(1)

        assert run_jobs() == 1

    def test_calling_a_task_runs_it_here(self):
        assert host_tasks.add.call(1, 2) == 3
        assert host_tasks.count_groups.call() == Group.objects.count()
        assert not Job.objects.exists()

    def test_a_task_may_enqueue_others(self):
        result = host_tasks.enqueues.enqueue()
        run_jobs()
        result.refresh()

        child = Job.objects.get(pk=result.return_value)
        assert (child.state, child.parent) == (JobState.COMPLETED, result.id)


@pytest.mark.django_db(transaction=True)
class TestTransactions:
    def test_a_rolled_back_transaction_leaves_no_task(self):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            result = host_tasks.add.enqueue(1)
            assert host_tasks.add.get_result(result.id).status == TaskResultStatus.READY
            1 / 0  # noqa: B018  # rolls back

        with pytest.raises(TaskResultDoesNotExist):
            host_tasks.add.get_result(result.id)

    def test_a_worker_gets_it_after_commit_only(self, broker):
        with transaction.atomic():
            host_tasks.add.enqueue(1)
            assert broker.transport.size("default") == 0

        assert broker.transport.size("default") == 1


@pytest.mark.django_db
class TestResults:
    def test_an_unknown_result_does_not_exist(self):
        for unknown in ("nothing", "", "a\0b", None):
            with pytest.raises(TaskResultDoesNotExist):
                host_tasks.add.get_result(unknown)

    def test_another_tasks_result_is_a_mismatch(self):
        result = host_tasks.add.enqueue(1)

        with pytest.raises(TaskResultMismatch):
            host_tasks.report.get_result(result.id)
        assert task_backends["default"].get_result(result.id).task == host_tasks.add

    def test_another_backends_result_and_an_actors_job_do_not_exist(self, broker):
        @dramatiq.actor(broker=broker)
        def plain() -> None:
            pass

        result = host_tasks.add.using(backend="quick").enqueue(1)

        for found in (result.id, plain.send().message_id):
            with pytest.raises(TaskResultDoesNotExist):
                task_backends["default"].get_result(found)
        assert task_backends["quick"].get_result(result.id).backend == "quick"

    def test_a_failure_has_its_class_and_stack(self):
        result = host_tasks.fail.enqueue("no such shop")
        run_jobs()
        result.refresh()

        (error,) = result.errors
        assert (result.status, result.attempts) == (TaskResultStatus.FAILED, 1)
        assert error.exception_class is ValidationError
        assert error.exception_class_path == "django.core.exceptions.ValidationError"
        assert "no such shop" in error.traceback
        assert "host_tasks.py" in error.traceback
        with pytest.raises(ValueError, match="Task failed"):
            result.return_value  # noqa: B018  # a property that raises

    def test_a_failed_task_is_a_dead_letter_and_can_be_requeued(self):
        host_tasks.failures.append(ConnectionError("provider is away"))
        result = host_tasks.flaky.enqueue()
        run_jobs()

        letter = DeadLetter.objects.get()
        assert (letter.job_id, letter.died_by) == (result.id, DeathCause.ATTEMPTS_EXHAUSTED)
        deadletters.requeue([letter.pk], by=None)
        result.refresh()
        assert result.status == TaskResultStatus.READY
        run_jobs()
        result.refresh()
        assert (result.status, result.return_value) == (TaskResultStatus.SUCCESSFUL, "at last")
        assert [error.exception_class for error in result.errors] == [ConnectionError]
        assert result.attempts == 2

    def test_the_queues_policy_decides_about_retries(self):
        host_tasks.failures.append(TimeoutError("slow"))
        result = host_tasks.flaky.using(queue_name="reports").enqueue()
        run_jobs()
        result.refresh()

        assert (result.status, result.attempts) == (TaskResultStatus.READY, 1)
        assert [error.exception_class for error in result.errors] == [TimeoutError]
        with time_machine.travel(timezone.now() + timedelta(seconds=6)):
            run_jobs()
        result.refresh()
        assert (result.status, result.attempts) == (TaskResultStatus.SUCCESSFUL, 2)

    @pytest.mark.parametrize("name", ["returns_an_object", "returns_too_much"])
    def test_a_result_that_cannot_be_kept_fails_the_task_at_once(self, name):
        result = getattr(host_tasks, name).using(queue_name="reports").enqueue()
        run_jobs()
        result.refresh()

        assert (result.status, result.attempts) == (TaskResultStatus.FAILED, 1)
        assert result.errors[0].exception_class is UnkeepableResult
        assert issubclass(UnkeepableResult, TypeError)

    def test_a_cancelled_task_has_failed(self):
        result = host_tasks.add.using(run_after=timezone.now() + timedelta(hours=1)).enqueue(1)
        jobs.cancel(result.id, by=None)
        result.refresh()

        assert result.status == TaskResultStatus.FAILED
        assert result.errors[0].exception_class_path == "queueadmin.exceptions.Cancelled"

    def test_a_task_that_never_ran_and_is_dead_says_why(self):
        result = host_tasks.add.enqueue(1)
        Job.objects.update(
            state=JobState.DEAD, error_class="WorkerCrashed", error_message="3 processes died"
        )
        result.refresh()

        assert result.status == TaskResultStatus.FAILED
        assert issubclass(result.errors[0].exception_class, Exception)
        assert "WorkerCrashed: 3 processes died" in result.errors[0].traceback

    def test_its_numbers_are_counted_like_an_actors(self):
        host_tasks.add.enqueue(1)
        run_jobs()

        row = MinuteStatistic.objects.get()
        assert (row.actor, row.completed) == ("tests.queueadmin.host_tasks.add", 1)


@pytest.mark.django_db
class TestContext:
    def test_it_says_which_attempt_and_result(self):
        host_tasks.failures.append(TimeoutError("slow"))
        result = host_tasks.tell.using(queue_name="reports").enqueue("shop")
        run_jobs()
        with time_machine.travel(timezone.now() + timedelta(seconds=6)):
            run_jobs()
        result.refresh()

        running = TaskResultStatus.RUNNING
        assert host_tasks.seen == [
            (1, result.id, running, ["shop"], 0),
            (2, result.id, running, ["shop"], 1),
        ]
        assert result.return_value == "shop 2"
        assert len(result.worker_ids) == 2


class TestAsync:
    @pytest.mark.django_db(transaction=True)
    def test_enqueue_and_results_from_a_coroutine(self):
        async def use() -> Any:
            result = await host_tasks.add.aenqueue(2, 3)
            found = await host_tasks.add.aget_result(result.id)
            assert found.status == TaskResultStatus.READY
            with pytest.raises(TaskResultDoesNotExist):
                await host_tasks.add.aget_result("nothing")
            return result

        result = async_to_sync(use)()
        run_jobs()

        async def look() -> None:
            await result.arefresh()

        async_to_sync(look)()
        assert result.return_value == 5

    @pytest.mark.django_db(transaction=True)
    def test_enqueue_where_a_loop_runs(self):
        async def use() -> Any:
            return host_tasks.add.enqueue(2, 3)

        result = asyncio.run(use())
        assert Job.objects.filter(pk=result.id).exists()

    @pytest.mark.django_db
    def test_a_coroutine_runs_and_sees_its_threads_transaction(self):
        Group.objects.create(name="night shift")
        before = Group.objects.count()
        result = host_tasks.count_groups.enqueue()
        run_jobs()
        result.refresh()

        assert result.return_value == before

    def test_a_time_limit_interrupts_a_coroutine(self, start_worker, settings):
        settings.QUEUEADMIN = {"QUEUES": {"default": Policy(attempts=1, time_limit=1)}}
        result = host_tasks.never_ends.enqueue()
        start_worker()

        await_end(result, seconds=8)
        assert result.errors[0].exception_class_path.endswith("TimeLimitExceeded")
        assert DeadLetter.objects.get().died_by == DeathCause.TIME_LIMIT
        assert host_tasks.seen == ["cancelled"]


class TestWorkers:
    def test_a_running_task_is_shown_with_its_worker(self, start_worker):
        result = host_tasks.sleeps.enqueue()
        start_worker()

        deadline = time.monotonic() + 10
        while result.status != TaskResultStatus.RUNNING and time.monotonic() < deadline:
            time.sleep(0.1)
            result.refresh()
        assert result.status == TaskResultStatus.RUNNING
        assert result.attempts == 1
        jobs.cancel(result.id, by=None)
        await_end(result)
        assert result.status == TaskResultStatus.FAILED

    def test_a_worker_finds_a_task_that_it_has_not_imported(self, broker, start_worker):
        result = host_tasks.add.enqueue(4)
        del broker.actors["tests.queueadmin.host_tasks.add"]
        start_worker()

        await_end(result)
        assert result.return_value == 4

    def test_a_message_that_only_says_it_is_a_task_imports_nothing(self, broker, start_worker):
        message = dramatiq.Message(
            queue_name="default",
            actor_name="antigravity.open",
            args=(),
            kwargs={},
            options={"task": {"backend": "nobody's"}},
        )
        broker.enqueue(message)
        start_worker()

        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if Job.objects.get().state == JobState.SCHEDULED:
                break
            time.sleep(0.1)
        assert Job.objects.get().state == JobState.SCHEDULED
        assert "antigravity" not in sys.modules


@pytest.mark.django_db
class TestSignals:
    def test_they_tell_of_each_step(self):
        said = []

        def listen(signal, task_result, **kwargs):
            said.append((signal, task_result.id, task_result.status))

        signals = (task_enqueued, task_started, task_finished)
        for signal in signals:
            signal.connect(listen)
        try:
            good, bad = host_tasks.add.enqueue(1), host_tasks.fail.enqueue("x")
            run_jobs()
        finally:
            for signal in signals:
                signal.disconnect(listen)

        Status = TaskResultStatus
        assert [step for step in said if step[1] == good.id] == [
            (task_enqueued, good.id, Status.READY),
            (task_started, good.id, Status.RUNNING),
            (task_finished, good.id, Status.SUCCESSFUL),
        ]
        assert said[-1] == (task_finished, bad.id, Status.FAILED)

    def test_a_task_runs_when_the_ledger_cannot_be_asked_about_it(self):
        def refuse(execute, sql, *rest):
            if 'FROM "queueadmin_attempt"' in sql:
                raise OperationalError("the ledger is away")
            return execute(sql, *rest)

        plain, with_context = host_tasks.add.enqueue(1), host_tasks.tell.enqueue("shop")
        with connection.execute_wrapper(refuse):
            run_jobs()

        assert host_tasks.add.get_result(plain.id).return_value == 1
        found = host_tasks.tell.get_result(with_context.id)
        assert [error.exception_class for error in found.errors] == [OperationalError]

    def test_a_retry_is_not_the_end(self):
        ended = []

        def listen(task_result, **kwargs):
            ended.append(task_result.attempts)

        task_finished.connect(listen)
        try:
            host_tasks.failures.append(TimeoutError("slow"))
            host_tasks.flaky.using(queue_name="reports").enqueue()
            run_jobs()
            assert ended == []
            with time_machine.travel(timezone.now() + timedelta(seconds=6)):
                run_jobs()
        finally:
            task_finished.disconnect(listen)
        assert ended == [2]


class TestValidation:
    def test_it_supports_everything_the_framework_knows(self, backend):
        assert backend.supports_defer
        assert backend.supports_async_task
        assert backend.supports_get_result
        assert backend.supports_priority

    def test_a_task_stands_at_the_level_of_its_module(self):
        def inner() -> None:
            pass

        with pytest.raises(InvalidTask):
            task(inner)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"priority": 101},
            {"priority": 0.5},
            {"queue_name": "nobody's"},
            {"run_after": timezone.now().replace(tzinfo=None)},
        ],
    )
    def test_wrong_options_are_refused(self, wrong):
        with pytest.raises(InvalidTask):
            host_tasks.add.using(**wrong)

    def test_a_context_has_to_be_taken(self):
        with pytest.raises(InvalidTask):
            task(takes_context=True)(host_tasks.add.func)

    def test_without_queues_any_is_good(self):
        host_tasks.add.using(backend="quick", queue_name="nobody's")

    def test_an_unknown_option_is_an_error_of_the_checks(self, settings):
        settings.TASKS = {"default": {"BACKEND": BACKEND, "OPTIONS": {"max_retry": 3}}}

        (found,) = task_backends["default"].check()
        assert (found.id, found.level) == ("queueadmin.E003", checks.ERROR)
        assert "max_retry" in found.msg


def test_workers_consume_the_queues_that_tasks_name():
    program = (
        "import tests.settings as base; "
        f"base.TASKS = {{'default': {{'BACKEND': {BACKEND!r}, 'QUEUES': ['night']}}}}; "
        "import django; django.setup(); import dramatiq; "
        "print('night' in dramatiq.get_broker().get_declared_queues())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert done.stdout.strip() == "True", done.stderr


def test_the_module_can_be_imported_without_the_framework():
    program = (
        "import sys; sys.modules['django_tasks'] = None; import queueadmin.tasks;"
        "sys.exit(any(name.startswith('django.tasks') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def await_end(result, seconds=10):
    deadline = time.monotonic() + seconds
    while not result.is_finished and time.monotonic() < deadline:
        time.sleep(0.05)
        result.refresh()
    assert result.is_finished
