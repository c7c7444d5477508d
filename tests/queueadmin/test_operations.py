"""Guarded requeues: canary, rate, stop, and two dispatchers or two people at once."""

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import dramatiq
import pytest
import time_machine
from django.db import connection, transaction
from django.test import override_settings

from queueadmin import clock, deadletters, operations
from queueadmin.brokers import RedisBroker
from queueadmin.dispatcher import Dispatcher
from queueadmin.exceptions import NotPermitted
from queueadmin.models import AuditEntry, DeadLetter, Job, OperationItem, RequeueOperation
from queueadmin.states import DeadLetterStatus, ItemState, JobState, OperationStatus
from tests.config.processes import wait_until
from tests.queueadmin.rows import TRIAGE, make_dead_letter, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("broker")]


@pytest.fixture
def time() -> Iterator[Any]:
    """Stop the clock; a test moves it."""
    with time_machine.travel(clock.now(), tick=False) as traveller:
        yield traveller


def begin(number: int, **options: Any) -> RequeueOperation:
    letters = [make_dead_letter().pk for _number in range(number)]
    return operations.create(letters, by=None, **{"name": "outage", **options})


def turns(time: Any, seconds: int) -> None:
    """Let the dispatcher run its duty for a while."""
    for _second in range(seconds * 2):
        time.shift(0.5)
        operations.carry_on()


def end(operation: RequeueOperation, *, failing: int = 0) -> None:
    """Let the jobs that run end, the first of them badly."""
    sent = OperationItem.objects.filter(operation=operation, state=ItemState.SENT)
    for index, item in enumerate(sent.order_by("position")):
        letters = DeadLetter.objects.filter(pk=item.dead_letter_id)
        if index < failing:
            letters.update(status=DeadLetterStatus.PENDING, deaths=2)
        else:
            letters.update(status=DeadLetterStatus.RECOVERED)


def states(operation: RequeueOperation) -> dict[str, int]:
    whole = operations.progress([operation])[operation.pk]
    found = {state.value: getattr(whole, state.value) for state in ItemState}
    return {state: number for state, number in found.items() if number}


def status(operation: RequeueOperation) -> str:
    operation.refresh_from_db()
    return operation.status


def test_a_preview_says_what_is_left_out_and_why() -> None:
    pending, closed = make_dead_letter(), make_dead_letter(status="permanently_failed")

    found = operations.preview([pending.pk, closed.pk, 99_999, pending.pk])

    assert found == operations.Preview(
        3, 1, {"already marked permanently failed": [closed.pk], "no longer there": [99_999]}
    )


@override_settings(QUEUEADMIN={"BULK_LIMIT": 2})
def test_a_list_is_frozen_up_to_the_limit() -> None:
    operation = begin(3)

    assert operation.total == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": " \0"}, "name"),
        ({"rate": 0}, "rate"),
        ({"rate": 1e9}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"canary": -1}, "canary"),
        ({"stop_at_percent": 0}, "share"),
        ({"stop_at_percent": 101}, "share"),
    ],
)
def test_a_number_out_of_range_is_refused_in_words(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        begin(1, **options)


def test_nothing_to_requeue_is_refused() -> None:
    letter = make_dead_letter(status=DeadLetterStatus.RECOVERED)

    with pytest.raises(ValueError, match="None of these"):
        operations.create([letter.pk], by=None, name="x")


def test_the_canary_runs_first_and_the_rest_waits_for_how_it_ends(time: Any) -> None:
    operation = begin(8, canary=3, rate=100)

    turns(time, 5)
    assert states(operation) == {"waiting": 5, "sent": 3}
    assert status(operation) == OperationStatus.CANARY

    end(operation)
    turns(time, 2)
    assert states(operation) == {"sent": 5, "recovered": 3}

    end(operation, failing=1)
    turns(time, 1)
    assert states(operation) == {"recovered": 7, "failed": 1}
    assert status(operation) == OperationStatus.FINISHED


def test_a_canary_that_fails_stops_it_and_a_resume_sends_another(time: Any) -> None:
    operation = begin(8, canary=3, rate=100, stop_at_percent=50)
    turns(time, 1)
    end(operation, failing=2)
    turns(time, 5)

    assert status(operation) == OperationStatus.STOPPED
    assert "2 of 3 failed again" in operation.note
    assert states(operation) == {"waiting": 5, "recovered": 1, "failed": 2}

    assert operations.resume(operation.pk, by=None)
    turns(time, 3)
    assert states(operation) == {"waiting": 2, "sent": 3, "recovered": 1, "failed": 2}
    end(operation)
    turns(time, 3)
    end(operation)
    turns(time, 1)
    assert status(operation) == OperationStatus.FINISHED
    assert states(operation) == {"recovered": 6, "failed": 2}


def test_it_stops_by_itself_when_too_many_of_the_rest_fail(time: Any) -> None:
    operation = begin(30, canary=0, rate=10, stop_at_percent=20)
    turns(time, 1)
    end(operation, failing=5)
    turns(time, 1)
    assert status(operation) == OperationStatus.RUNNING  # five results prove nothing
    end(operation, failing=0)
    turns(time, 5)

    assert status(operation) == OperationStatus.STOPPED
    assert states(operation)["waiting"] > 0


def test_the_rate_holds_and_a_late_turn_floods_nobody(time: Any) -> None:
    operation = begin(100, canary=0, rate=4)
    operations.carry_on()

    turns(time, 3)
    assert states(operation)["sent"] == 12
    time.shift(600)
    operations.carry_on()

    assert states(operation)["sent"] == 20


def test_a_rate_below_one_releases_now_and_then(time: Any) -> None:
    operation = begin(3, canary=0, rate=0.1)
    operations.carry_on()

    turns(time, 9)
    assert states(operation) == {"waiting": 3}
    turns(time, 11)

    assert states(operation) == {"waiting": 1, "sent": 2}


def test_it_starts_at_its_time(time: Any) -> None:
    operation = begin(1, start_at=clock.now() + timedelta(minutes=1))

    turns(time, 50)
    assert status(operation) == OperationStatus.SCHEDULED
    turns(time, 15)

    assert states(operation) == {"sent": 1}


def test_pause_and_resume_go_on_where_it_was(time: Any) -> None:
    operation = begin(20, canary=0, rate=2)
    operations.carry_on()
    turns(time, 2)

    assert operations.pause(operation.pk, by=None, reason="lunch")
    assert not operations.pause(operation.pk, by=None)
    turns(time, 10)
    assert states(operation)["sent"] == 4
    assert operations.resume(operation.pk, by=None)
    assert not operations.resume(operation.pk, by=None)
    turns(time, 2)

    assert states(operation)["sent"] == 8
    verbs = list(
        AuditEntry.objects.filter(target_type=operations.TARGET).order_by("pk").values_list("verb")
    )
    assert verbs == [("create",), ("pause",), ("resume",)]


def test_abort_leaves_the_rest_dead_and_still_takes_the_results(time: Any) -> None:
    operation = begin(10, canary=0, rate=2)
    operations.carry_on()
    turns(time, 1)

    assert operations.abort(operation.pk, by=None)
    assert not operations.abort(operation.pk, by=None)
    assert not operations.resume(operation.pk, by=None)
    end(operation)
    turns(time, 5)

    assert states(operation) == {"waiting": 8, "recovered": 2}
    assert DeadLetter.objects.pending().count() == 8


def test_what_somebody_else_did_meanwhile_is_skipped_with_its_reason(time: Any) -> None:
    operation = begin(3, canary=0, rate=100)
    first, second, third = operation.items.values_list("dead_letter", flat=True)
    DeadLetter.objects.filter(pk=first).update(status=DeadLetterStatus.PERMANENTLY_FAILED)
    Job.objects.filter(dead_letter=second).update(state=JobState.CANCELLED)

    turns(time, 1)

    found = dict(operation.items.values_list("dead_letter", "skip"))
    assert found[first] == "already marked permanently failed"
    assert found[second] == "job cannot run again"
    assert states(operation) == {"sent": 1, "skipped": 2}
    assert Job.objects.get(dead_letter=third).state == JobState.WAITING


def test_a_job_that_failed_again_and_was_requeued_by_somebody_else_counts_as_failed(
    time: Any,
) -> None:
    operation = begin(1, canary=0, rate=100)
    turns(time, 1)
    DeadLetter.objects.update(status=DeadLetterStatus.RECOVERED, deaths=2)

    turns(time, 1)

    assert states(operation) == {"failed": 1}


def test_an_owner_who_lost_the_permission_requeues_nothing_more(time: Any) -> None:
    anna = make_user("anna", *TRIAGE)
    letters = [make_dead_letter().pk for _number in range(4)]
    operation = operations.create(letters, by=anna, name="x", canary=0, rate=2)
    operations.carry_on()
    turns(time, 1)
    anna.user_permissions.clear()

    turns(time, 3)

    assert status(operation) == OperationStatus.STOPPED
    assert "anna lacks the permission" in operation.note
    assert states(operation)["sent"] == 2


def test_an_owner_whose_account_is_gone_requeues_nothing_more(time: Any) -> None:
    anna = make_user("anna", *TRIAGE)
    operation = operations.create([make_dead_letter().pk], by=anna, name="x", canary=0)
    anna.delete()

    turns(time, 3)

    assert status(operation) == OperationStatus.STOPPED
    assert states(operation) == {"waiting": 1}


VERBS: list[Callable[..., Any]] = [
    lambda pk, by: operations.create([make_dead_letter().pk], by=by, name="x"),
    lambda pk, by: operations.pause(pk, by=by),
    lambda pk, by: operations.resume(pk, by=by),
    lambda pk, by: operations.abort(pk, by=by),
]


@pytest.mark.parametrize("act", VERBS)
def test_a_verb_refuses_who_may_not_requeue(act: Callable[..., Any]) -> None:
    operation = begin(1)
    nearly = make_user("nearly", *(name for name in TRIAGE if name != "requeue_deadletter"))

    with pytest.raises(NotPermitted):
        act(operation.pk, nearly)

    assert status(operation) == OperationStatus.SCHEDULED


def test_a_broken_operation_stops_neither_the_others_nor_the_dispatcher(
    time: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, sound = begin(1, canary=0), begin(1, canary=0)
    operations.carry_on()
    turn = operations._turn

    def fail(operation: RequeueOperation) -> int:
        if operation.pk == broken.pk:
            raise RuntimeError("unforeseen")
        return turn(operation)

    monkeypatch.setattr(operations, "_turn", fail)
    turns(time, 1)

    assert (status(broken), broken.note) == (OperationStatus.STOPPED, "RuntimeError: unforeseen")
    assert states(sound) == {"sent": 1}


def test_the_dispatcher_has_the_duty() -> None:
    assert operations.carry_on in [duty for _every, duty in Dispatcher.duties]


def _meanwhile(first: Callable[[], object], second: Callable[[], object]) -> None:
    """Begin `second` in another connection while the transaction of `first` is open."""
    errors: list[Exception] = []
    started = threading.Event()

    def run_second() -> None:
        started.set()
        try:
            second()
        except Exception as error:  # handed to the test's own thread
            errors.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run_second)
    with transaction.atomic():
        first()
        thread.start()
        started.wait()
    thread.join()
    assert not errors, errors


def _as_read_before(operation: RequeueOperation, at: datetime) -> Callable[[], int]:
    """A turn of a dispatcher that has read the operation just now."""
    seen = RequeueOperation.objects.select_related("owner").get(pk=operation.pk)
    return lambda: operations._release(seen, at, 100)


@pytest.mark.django_db(transaction=True)
def test_of_two_dispatchers_in_the_same_turn_one_releases() -> None:
    operation = begin(20, canary=0, rate=4)
    operations.carry_on()
    at = clock.now() + timedelta(seconds=1)
    turns_ = [_as_read_before(operation, at), _as_read_before(operation, at)]

    _meanwhile(*turns_)

    assert states(operation) == {"waiting": 16, "sent": 4}
    assert Job.objects.filter(requeues=1).count() == 4
    assert not Job.objects.filter(requeues__gt=1).exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pause_is_first", [True, False])
def test_after_a_pause_is_committed_nothing_is_released(pause_is_first: bool) -> None:
    operation = begin(20, canary=0, rate=4)
    operations.carry_on()
    acts: list[Callable[[], object]] = [
        lambda: operations.pause(operation.pk, by=None),
        _as_read_before(operation, clock.now() + timedelta(seconds=1)),
    ]

    _meanwhile(*(acts if pause_is_first else reversed(acts)))

    assert status(operation) == OperationStatus.PAUSED
    assert states(operation).get("sent", 0) == (0 if pause_is_first else 4)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("operation_is_first", [True, False])
def test_of_an_operation_and_a_person_who_requeue_the_same_letter_one_does(
    operation_is_first: bool,
) -> None:
    operation = begin(1, canary=0, rate=4)
    operations.carry_on()
    letter = operation.items.get().dead_letter_id
    acts: list[Callable[[], object]] = [
        _as_read_before(operation, clock.now() + timedelta(seconds=1)),
        lambda: deadletters.requeue([letter], by=None),
    ]

    _meanwhile(*(acts if operation_is_first else reversed(acts)))

    assert Job.objects.get().requeues == 1
    assert states(operation) == ({"sent": 1} if operation_is_first else {"skipped": 1})


@pytest.mark.django_db(transaction=True)
def test_workers_carry_an_operation_to_its_end(
    broker: RedisBroker, start_worker: Callable[..., Any]
) -> None:
    healthy = threading.Event()

    @dramatiq.actor(queue_name="mail", broker=broker, max_retries=0)
    def send(number: int) -> None:
        if not healthy.is_set():
            raise RuntimeError("provider is down")

    for number in range(6):
        send.send(number)
    start_worker()
    wait_until(lambda: DeadLetter.objects.pending().count() == 6)
    operation = operations.create(
        list(DeadLetter.objects.values_list("pk", flat=True)),
        by=None,
        name="outage",
        canary=2,
        rate=100,
        stop_at_percent=50,
    )

    wait_until(lambda: status(operation) == OperationStatus.STOPPED)
    healthy.set()
    operations.resume(operation.pk, by=None)
    wait_until(lambda: status(operation) == OperationStatus.FINISHED)

    found = states(operation)
    assert found["failed"] in (1, 2)
    assert found["recovered"] == 6 - found["failed"]
