"""Jobs come from plain Dramatiq's RabbitMQ broker and go back to it."""

import io
import json
import time
from uuid import uuid4

import amqp
import dramatiq
import pytest
from django.core.management import call_command
from dramatiq.brokers.rabbitmq import RabbitmqBroker as PlainBroker

from queueadmin import backlog, ledger
from queueadmin.brokers.line import options_of
from queueadmin.management.commands.queueadmin import PARTLY
from queueadmin.models import DeadLetter, Job
from queueadmin.states import DeathCause, JobState

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.rabbitmq,
    pytest.mark.timeout(60),
]


def wait_until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def queue():
    """A name that nobody else uses on the server."""
    return f"q-{uuid4().hex[:12]}"


@pytest.fixture
def channel(rabbitmq_url, queue):
    with amqp.Connection(**options_of(rabbitmq_url)) as connection:
        channel = connection.channel()
        yield channel
        for name in (queue, f"{queue}.DQ", f"{queue}.XQ"):
            channel.queue_delete(name)


@pytest.fixture
def plain_broker(rabbitmq_url, channel):
    broker = PlainBroker(url=rabbitmq_url)
    yield broker
    broker.close()


@pytest.fixture
def ran():
    return []


def actor_on(broker, queue, ran, **options):
    @dramatiq.actor(queue_name=queue, broker=broker, actor_name="work", **options)
    def work(number):
        ran.append(number)
        if number < 0:
            raise ValueError("below zero")

    return work


@pytest.fixture
def work(plain_broker, queue, ran):
    return actor_on(plain_broker, queue, ran, max_retries=0)


@pytest.fixture
def ours(broker, queue, ran):
    return actor_on(broker, queue, ran)


@pytest.fixture
def plain(rabbitmq_url, broker, ours):
    plain = backlog.plain_of(rabbitmq_url, "", broker)
    yield plain
    plain.close()


@pytest.fixture
def plain_worker(plain_broker):
    workers = []

    def start():
        worker = dramatiq.Worker(plain_broker, worker_threads=2, worker_timeout=100)
        worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.stop()


def number_in(channel, name):
    return channel.queue_declare(name, passive=True).message_count


def consumers_of(channel, name):
    return channel.queue_declare(name, passive=True).consumer_count


def test_what_waits_and_what_is_delayed_becomes_jobs_under_its_ids(
    broker, plain, channel, queue, work, start_worker, ran
):
    waiting = [work.send(number) for number in range(3)]
    delayed = work.send_with_options(args=(9,), delay=3_600_000)
    wait_until(lambda: number_in(channel, queue) == 3)

    (found,) = backlog.adopt(plain, broker)

    assert (found.queue, found.waiting, found.scheduled, found.held) == (queue, 3, 1, 0)
    assert dict(Job.objects.values_list("pk", "state")) == {
        **{message.message_id: "waiting" for message in waiting},
        delayed.message_id: "scheduled",
    }
    assert abs(Job.objects.get(state="scheduled").due_at.timestamp() - time.time() - 3600) < 60
    assert number_in(channel, queue) == number_in(channel, f"{queue}.DQ") == 0
    start_worker()
    wait_until(lambda: Job.objects.filter(state=JobState.COMPLETED).count() == 3)
    assert sorted(ran) == [0, 1, 2]


def test_what_failed_for_good_is_a_dead_letter(broker, plain, channel, queue, work, plain_worker):
    message = work.send(-1)
    worker = plain_worker()
    wait_until(lambda: number_in(channel, f"{queue}.XQ") == 1)
    worker.stop()

    (found,) = backlog.adopt(plain, broker)

    assert (found.dead, found.waiting, found.held) == (1, 0, 0)
    letter = DeadLetter.objects.get()
    assert (letter.job_id, letter.died_by) == (message.message_id, DeathCause.ATTEMPTS_EXHAUSTED)
    assert abs(letter.died_at.timestamp() - time.time()) < 60
    assert number_in(channel, f"{queue}.XQ") == 0


def test_what_nobody_can_read_is_a_dead_letter_with_its_bytes(broker, plain, channel, queue, work):
    work.send(1)
    channel.basic_publish_confirm(amqp.Message(b"\x00\xff", delivery_mode=2), "", queue)

    (found,) = backlog.adopt(plain, broker)

    assert (found.unreadable, found.waiting) == (1, 1)
    assert bytes(DeadLetter.objects.get().raw) == b"\x00\xff"


@pytest.mark.parametrize("step", ["inserted", "pushed"])
def test_an_interrupted_call_is_carried_on_and_nothing_runs_twice(
    broker, plain, channel, queue, work, start_worker, ran, monkeypatch, step
):
    for number in range(5):
        work.send(number)
    wait_until(lambda: number_in(channel, queue) == 5)
    target, name = (ledger, "insert") if step == "inserted" else (broker, "push")
    done = getattr(target, name)

    def die(*arguments):
        done(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(target, name, die)
        backlog.adopt(plain, broker)
    wait_until(lambda: number_in(channel, queue) == 5)
    found = backlog.adopt(plain, broker)

    assert [(one.waiting, one.known) for one in found] == [(5, 0) if step == "inserted" else (0, 5)]
    start_worker()
    wait_until(lambda: Job.objects.filter(state=JobState.COMPLETED).count() == 5)
    assert sorted(ran) == list(range(5))
    assert backlog.adopt(plain, broker) == []


def test_workers_that_still_consume_are_said(
    broker, rabbitmq_url, channel, queue, work, plain_worker
):
    work.send(1)
    worker = plain_worker()
    # One consumer for what waits, one for what is delayed; each connects by itself.
    wait_until(lambda: [consumers_of(channel, name) for name in (queue, f"{queue}.DQ")] == [1, 1])
    arguments = ["--from", rabbitmq_url, "--format", "json", "--reason", "move"]
    actor_on(broker, queue, [])

    def adopt():
        out, code = io.StringIO(), 0
        try:
            call_command("queueadmin", "adopt-backlog", *arguments, stdout=out)
        except SystemExit as ended:
            code = ended.code
        return json.loads(out.getvalue()), code

    (row,), code = adopt()
    assert row["held"] == 2
    assert code == PARTLY

    worker.stop()
    assert adopt() == ([], 0)


def test_open_jobs_are_handed_back_and_run_by_plain_workers(
    broker, plain, channel, queue, ours, plain_broker, plain_worker, ran
):
    ours.send(1)
    later = ours.send_with_options(args=(3,), delay=3_600_000)

    found = backlog.hand_back(plain, broker)

    assert (found.handed_back, found.held) == (2, 0)
    assert not Job.objects.unfinished().exists()
    assert number_in(channel, f"{queue}.DQ") == 1
    # Declared as Dramatiq itself declares them, or this would fail.
    actor_on(plain_broker, queue, ran, max_retries=0)
    plain_broker.declare_queue(queue, ensure=True)
    plain_worker()
    wait_until(lambda: ran == [1])
    assert later.message_id in {job.pk for job in Job.objects.filter(state=JobState.CANCELLED)}
