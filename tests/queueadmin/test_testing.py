"""The helpers for host projects' tests, and their page of documentation, run as it is written."""

import re
import unittest
from datetime import timedelta
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import time_machine
from django.db import transaction
from django.utils import timezone

from queueadmin import deadletters
from queueadmin.models import Attempt, DeadLetter, FailureGroup, Job, MinuteStatistic
from queueadmin.states import DeathCause, JobState
from queueadmin.testing import (
    assert_enqueued,
    assert_not_enqueued,
    make_dead_letter,
    run_jobs,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "testing.md"
ran: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@pytest.fixture
def note(broker: Any) -> Any:
    @dramatiq.actor(queue_name="notes", broker=broker)
    def note(text: str, times: int = 1) -> None:
        ran.append(text)

    return note


@pytest.mark.django_db
def test_the_page_in_the_docs_runs_as_it_is_written(broker, client) -> None:
    settings, code, tests = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert "StubBroker" in settings
    names: dict[str, Any] = {"__name__": "shop.tests"}
    exec(compile(code + tests, "docs/testing.md", "exec"), names)

    case = names["OrderTests"]
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
    result = unittest.TestResult()
    suite.run(result)

    assert [text for _, text in result.errors + result.failures] == []
    assert result.testsRun == 5


class TestRunJobs:
    @pytest.mark.django_db
    def test_what_waits_for_the_commit_runs_once(self, note):
        transaction.on_commit(lambda: note.send("hook"))

        assert run_jobs() == 1
        assert run_jobs() == 0
        assert ran == ["hook"]

    @pytest.mark.django_db
    def test_hooks_of_a_rolled_back_block_do_not_run(self, note):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            transaction.on_commit(lambda: note.send("never"))
            1 / 0  # noqa: B018  # rolls back

        assert run_jobs() == 0

    @pytest.mark.django_db
    def test_hooks_that_a_job_leaves_run_after_it(self, broker, note):
        @dramatiq.actor(broker=broker)
        def later() -> None:
            with transaction.atomic():
                transaction.on_commit(lambda: note.send("from a job"))
                ran.append("job")

        later.send()

        assert run_jobs() == 2
        assert ran == ["job", "from a job"]

    @pytest.mark.django_db
    def test_a_hook_that_fails_fails_the_test_unless_it_is_robust(self, broker):
        def fail() -> None:
            raise ZeroDivisionError

        transaction.on_commit(fail, robust=True)
        run_jobs()
        transaction.on_commit(fail)
        with pytest.raises(ZeroDivisionError):
            run_jobs()

    @pytest.mark.django_db
    def test_nothing_reaches_the_broker(self, broker, note):
        note.send("x")
        run_jobs()

        assert broker.transport.size("notes") == 0

    @pytest.mark.django_db(transaction=True)
    def test_really_committed_jobs_run_alike(self, note):
        with transaction.atomic():
            note.send("committed")
            transaction.on_commit(lambda: note.send("hook"))

        assert run_jobs() == 2
        assert sorted(ran) == ["committed", "hook"]

    @pytest.mark.django_db
    def test_jobs_that_enqueue_each_other_are_stopped(self, broker):
        @dramatiq.actor(broker=broker)
        def again() -> None:
            again.send()

        again.send()
        with pytest.raises(RuntimeError, match="5 runs"):
            run_jobs(limit=5)


@pytest.mark.django_db
class TestAssertEnqueued:
    def test_it_returns_the_jobs_in_their_order(self, note):
        first, second = note.send("a"), note.send("b")

        assert [job.pk for job in assert_enqueued(note)] == [first.message_id, second.message_id]
        assert_enqueued("note", times=2)
        (job,) = assert_enqueued(note, args=["b"])
        assert job.pk == second.message_id

    @pytest.mark.parametrize(
        "wanted",
        [
            {"args": ["a", 2]},
            {"kwargs": {"text": "a", "times": 2}},
            {"args": ["a"], "kwargs": {"times": 2}},
        ],
    )
    def test_arguments_are_compared_by_parameter(self, note, wanted):
        note.send("a", times=2)

        assert_enqueued(note, **wanted)

    @pytest.mark.parametrize(
        "other",
        [
            {"args": ["a"]},
            {"args": []},
            {"kwargs": {"text": "b", "times": 2}},
            {"queue": "others"},
            {"delay": timedelta(minutes=1)},
            # Made when tests are collected, which may be minutes before.
            {"at": timezone.now() + timedelta(days=1)},
            {"times": 2},
            {"times": 0},
        ],
    )
    def test_what_differs_is_not_it_and_the_message_shows_what_was(self, note, other):
        note.send("a", times=2)

        with pytest.raises(AssertionError, match=r"note\(text='a', times=2\) on notes") as failed:
            assert_enqueued(note, **other)
        assert "note was not enqueued like this" in str(failed.value)
        if "times" not in other:
            assert_not_enqueued(note, **other)

    def test_a_delay_and_a_time(self, note):
        note.send_with_options(args=("a",), delay=3_600_000)

        assert_enqueued(note, delay=timedelta(hours=1))
        assert_enqueued(note, at=timezone.now() + timedelta(hours=1))
        assert_not_enqueued(note, delay=timedelta(0))

    def test_a_job_that_has_run_was_enqueued(self, note):
        note.send("a")
        run_jobs()

        assert_enqueued(note, args=["a"], delay=timedelta(0))

    def test_json_makes_lists_of_tuples(self, broker):
        @dramatiq.actor(broker=broker)
        def pair(both: tuple[int, int]) -> None: ...

        pair.send((1, 2))

        assert_enqueued(pair, args=[(1, 2)])
        assert_enqueued(pair, args=[[1, 2]])

    def test_no_job_at_all(self, note):
        assert_not_enqueued()
        with pytest.raises(AssertionError, match="No job was enqueued"):
            assert_enqueued(note)
        note.send("a")
        with pytest.raises(AssertionError, match="A job was enqueued"):
            assert_not_enqueued()

    def test_an_actor_of_another_process_is_found_by_name(self, broker, note):
        broker.enqueue(note.message("a").copy(actor_name="elsewhere"))

        assert_enqueued("elsewhere", args=["a"])
        assert_not_enqueued("elsewhere", args=["b"])


@pytest.mark.django_db
class TestMakeDeadLetter:
    def test_it_is_as_a_worker_would_have_made_it(self, broker, note):
        letter = make_dead_letter(
            note, args=["a"], error=ConnectionError("away"), cause=DeathCause.TIME_LIMIT
        )

        assert (letter.job.state, letter.died_by) == (JobState.DEAD, DeathCause.TIME_LIMIT)
        assert (letter.queue, letter.actor, letter.error_class) == (
            "notes",
            "note",
            "ConnectionError",
        )
        assert "ConnectionError: away" in letter.traceback
        assert Attempt.objects.get().job_id == letter.job_id
        assert FailureGroup.objects.get().deaths == 1
        assert MinuteStatistic.objects.get().dead == 1
        assert ran == []

    def test_requeued_it_runs(self, note):
        letter = make_dead_letter(note, kwargs={"text": "a"}, queue="elsewhere")
        assert letter.queue == "elsewhere"
        deadletters.requeue([letter.pk], by=None)

        assert run_jobs() == 1
        assert ran == ["a"]

    def test_no_worker_ever_gets_it(self, broker, note):
        make_dead_letter(note, args=["a"])

        assert run_jobs() == 0
        assert broker.transport.size("notes") == 0

    def test_wrong_arguments_are_refused(self, note):
        with pytest.raises(ValueError, match="text must be str"):
            make_dead_letter(note, args=[1])
        assert not Job.objects.exists()
        assert not DeadLetter.objects.exists()

    def test_its_time_is_the_tests(self, note):
        at = timezone.now() - timedelta(days=3)
        with time_machine.travel(at, tick=False):
            assert make_dead_letter(note, args=["a"]).died_at == at
