"""Enqueueing: in the caller's transaction, never in the way of a request, never half-way."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import dramatiq
import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from queueadmin import dispatcher
from queueadmin.brokers import RedisBroker, base
from queueadmin.exceptions import InvalidMessage
from queueadmin.models import Job
from queueadmin.states import JobState, Priority

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.every_provider]


@pytest.fixture
def greet(broker):
    @dramatiq.actor(queue_name="greetings", broker=broker)
    def greet(name): ...

    return greet


def held(broker: RedisBroker) -> list[str]:
    return [parcel_id for parcel_id, _ in broker.transport.fetch("greetings", 100)]


def test_a_sent_message_is_a_waiting_job_and_lies_in_the_broker(broker, greet):
    message = greet.send("anna")

    job = Job.objects.get()
    assert job.pk == message.message_id
    assert job.state == JobState.WAITING
    assert (job.queue, job.actor, job.attempts) == ("greetings", "greet", 0)
    assert job.payload["args"] == ["anna"]
    assert held(broker) == [f"{job.pk}:1"]


def test_a_rolled_back_transaction_enqueues_nothing(broker, greet):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        greet.send("anna")
        raise ZeroDivisionError

    assert not Job.objects.exists()
    assert held(broker) == []


def test_a_rolled_back_savepoint_takes_only_its_own_jobs_along(broker, greet):
    with transaction.atomic():
        before = greet.send("before")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            greet.send("inside")
            raise ZeroDivisionError
        after = greet.send("after")

    kept = {before.message_id, after.message_id}
    assert set(Job.objects.values_list("pk", flat=True)) == kept
    assert {parcel_id.split(":")[0] for parcel_id in held(broker)} == kept


def test_nothing_is_pushed_before_the_commit_and_then_all_in_one_pipeline(
    broker, greet, monkeypatch
):
    pushes = []
    monkeypatch.setattr(broker.transport, "send", lambda parcels: pushes.append(len(parcels)))

    with transaction.atomic():
        for name in ("anna", "ben", "cleo"):
            greet.send(name)
        assert pushes == []

    assert pushes == [3]


def test_an_order_is_accepted_while_redis_is_down_and_sent_when_it_is_back(
    broker, greet, time_machine
):
    time_machine.move_to("2026-05-05T10:00:00Z", tick=False)
    transport, broker.transport = broker.transport, _unreachable()

    message = greet.send("anna")

    assert Job.objects.get().state == JobState.WAITING
    broker.transport = transport
    broker._pushing_paused_until = 0.0
    time_machine.shift(dispatcher.UNCONFIRMED_AFTER.total_seconds() + 1)
    assert dispatcher.confirm(broker) == 1
    assert held(broker) == [f"{message.message_id}:2"]
    # Known to be there now: not pushed once more.
    assert dispatcher.confirm(broker) == 0


def _unreachable():
    from queueadmin.brokers.redis import RedisTransport

    return RedisTransport("redis://127.0.0.1:1/0", "test")


def test_a_job_that_reached_the_broker_is_confirmed_and_not_pushed_again(
    broker, greet, time_machine
):
    time_machine.move_to("2026-05-05T10:00:00Z", tick=False)
    message = greet.send("anna")
    time_machine.shift(10)

    assert dispatcher.confirm(broker) == 0

    assert Job.objects.get().in_broker
    assert held(broker) == [f"{message.message_id}:1"]


def test_after_a_failed_push_the_process_does_not_try_for_a_moment(broker, greet, monkeypatch):
    monkeypatch.setattr(base, "_PUSH_PAUSE_SECONDS", 60.0)
    broker.transport = _unreachable()
    greet.send("anna")
    monkeypatch.setattr(broker.transport, "send", lambda parcels: pytest.fail("tried again"))

    greet.send("ben")

    assert Job.objects.count() == 2


def test_a_delayed_message_is_scheduled_in_the_ledger_and_pushed_when_due(
    broker, greet, time_machine
):
    time_machine.move_to("2026-05-05T10:00:00Z", tick=False)
    message = greet.send_with_options(args=("anna",), delay=365 * 24 * 3600 * 1000)

    job = Job.objects.get()
    assert job.state == JobState.SCHEDULED
    assert job.due_at.isoformat() == "2027-05-05T10:00:00+00:00"
    assert dispatcher.promote(broker) == 0
    assert held(broker) == []

    time_machine.move_to("2027-05-05T10:00:00Z", tick=False)
    assert dispatcher.promote(broker) == 1
    assert held(broker) == [f"{message.message_id}:1"]
    job.refresh_from_db()
    assert job.state == JobState.WAITING


def test_a_time_in_the_past_means_now(broker, greet):
    greet.send_with_options(args=("anna",), eta=1)
    greet.send_with_options(args=("ben",), delay=0)

    assert len(held(broker)) == 2
    assert dispatcher.promote(broker) == 0


def test_two_dispatchers_promote_each_job_once(broker, greet, time_machine):
    time_machine.move_to("2026-05-05T10:00:00Z", tick=False)
    for number in range(200):
        greet.send_with_options(args=(number,), delay=1000)
    time_machine.shift(2)
    barrier = threading.Barrier(2)

    def promote():
        barrier.wait()
        try:
            return dispatcher.promote(broker)
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        promoted = [future.result() for future in [pool.submit(promote) for _ in range(2)]]

    assert sum(promoted) == 200
    assert len(broker.transport.fetch("greetings", 500)) == 200


def test_the_same_message_enqueued_twice_is_one_job(broker, greet):
    message = greet.message("anna")

    broker.enqueue(message)
    broker.enqueue(message)

    assert Job.objects.count() == 1
    assert len(held(broker)) == 1


def test_priority_is_strict_within_the_queue(broker, greet):
    for priority in ("low", "normal", "high"):
        greet.send_with_options(args=(priority,), priority=priority)

    fetched = broker.transport.fetch("greetings", 10)

    assert [json.loads(data)["args"][0] for _, data in fetched] == ["high", "normal", "low"]
    assert set(Job.objects.values_list("priority", flat=True)) == set(Priority.LABELS)


def test_many_jobs_are_added_and_pushed_at_once(broker, greet, monkeypatch):
    pushes = []
    send = broker.transport.send
    monkeypatch.setattr(
        broker.transport, "send", lambda parcels: (pushes.append(len(parcels)), send(parcels))
    )

    broker.enqueue_many(greet.message(number) for number in range(1200))

    assert Job.objects.count() == 1200
    assert pushes == [1200]


def test_a_few_jobs_cost_a_transaction_one_statement(broker, greet):
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        broker.enqueue_many([greet.message("anna"), greet.message("ben"), greet.message("carla")])

    assert [query["sql"][:11] for query in queries] == ["INSERT INTO"]
    assert len(held(broker)) == 3


def test_of_many_jobs_with_a_bad_one_none_is_added_and_it_is_named(broker, greet):
    messages = [greet.message(1), greet.message(object()), greet.message(3)]

    with pytest.raises(InvalidMessage, match="Message 1: The arguments of greet"):
        broker.enqueue_many(messages)

    assert not Job.objects.exists()
    assert held(broker) == []


def test_sending_from_an_async_view_works(broker, greet):
    async def view():
        return greet.send("anna")

    message = asyncio.run(view())

    assert Job.objects.get().pk == message.message_id
    assert held(broker) == [f"{message.message_id}:1"]


def test_a_message_is_linked_to_its_business_object(broker, greet, django_user_model):
    anna = django_user_model.objects.create(username="anna")
    subject = f"auth.user:{anna.pk}"

    greet.send_with_options(args=("anna",), subject=subject)

    assert Job.objects.about(anna).count() == 1


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"retries": "many"}, "retries"),
        ({"max_retries": -1}, "max_retries"),
        ({"time_limit": "soon"}, "time_limit"),
        ({"max_age": True}, "max_age"),
        ({"eta": float("nan")}, "eta"),
        ({"priority": "urgent"}, "priority"),
        ({"subject": 12}, "subject"),
        ({"throws": "ValueError"}, "throws"),
        ({"on_retry_exhausted": ["a"]}, "on_retry_exhausted"),
    ],
)
def test_a_hostile_option_is_refused_with_its_name(broker, greet, options, field):
    with pytest.raises(InvalidMessage) as caught:
        broker.enqueue(greet.message_with_options(args=("anna",), **options))

    assert caught.value.field == field
    assert field in str(caught.value)
    assert not Job.objects.exists()


def test_a_payload_that_is_not_json_is_refused_and_says_so(broker, greet):
    with pytest.raises(InvalidMessage, match="greet cannot be encoded"):
        greet.send(object())

    assert not Job.objects.exists()


def test_an_oversized_payload_is_refused_and_says_what_to_do(broker, greet, settings):
    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "MAX_MESSAGE_BYTES": 1000}

    with pytest.raises(InvalidMessage, match="Store the data and send its id"):
        greet.send("x" * 1000)

    assert not Job.objects.exists()


@pytest.mark.parametrize("message_id", ["", "x" * 65, "a\nb", 12])
def test_a_job_id_that_no_ledger_can_hold_is_refused(broker, greet, message_id):
    with pytest.raises(InvalidMessage) as caught:
        broker.enqueue(greet.message("anna").copy(message_id=message_id))

    assert caught.value.field == "message_id"


def test_text_that_databases_refuse_is_kept_byte_for_byte(broker, greet):
    hostile = "a\x00b\ud800<script>"

    greet.send(hostile)

    assert Job.objects.get().payload["args"] == [hostile]


def test_flush_cancels_what_has_not_started(broker, greet):
    greet.send("anna")
    greet.send_with_options(args=("ben",), delay=60_000)

    broker.flush_all()

    assert set(Job.objects.values_list("state", flat=True)) == {JobState.CANCELLED}
    assert held(broker) == []
