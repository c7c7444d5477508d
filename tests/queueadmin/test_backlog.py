"""Jobs come from plain Dramatiq's Redis broker and go back to it, each on one side only."""

import io
import json
import time

import dramatiq
import pytest
import redis
from django.core.management import call_command
from dramatiq.brokers.redis import RedisBroker as PlainBroker

from queueadmin import backlog, dispatcher, ledger
from queueadmin.brokers.plain import PlainQueues
from queueadmin.exceptions import NotPermitted
from queueadmin.management.commands.queueadmin import PARTLY
from queueadmin.models import Attempt, AuditEntry, DeadLetter, Job
from queueadmin.states import DeathCause, JobState
from tests.queueadmin.rows import make_user

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(60)]


def wait_until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def plain_broker(redis_url):
    """The broker of a project before it installs queueadmin, in the same namespace as ours."""
    broker = PlainBroker(url=redis_url, namespace="test", maintenance_chance=0)
    yield broker
    broker.close()
    broker.client.close()


@pytest.fixture
def plain(redis_url):
    queues = PlainQueues(redis_url, "test")
    yield queues
    queues.close()


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


def actor_on(broker, ran, **options):
    @dramatiq.actor(queue_name="q", broker=broker, actor_name="work", **options)
    def work(number):
        ran.append(number)
        if number < 0:
            raise ValueError("below zero")

    return work


@pytest.fixture
def ran():
    return []


@pytest.fixture
def work(plain_broker, ran):
    return actor_on(plain_broker, ran, max_retries=0)


@pytest.fixture
def ours(broker, ran):
    return actor_on(broker, ran)


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


def states():
    return dict(Job.objects.values_list("pk", "state"))


@pytest.mark.every_provider
def test_what_waits_and_what_is_delayed_becomes_jobs_under_its_ids(
    broker, plain, work, ours, start_worker, ran
):
    waiting = [work.send(number) for number in range(3)]
    delayed = work.send_with_options(args=(9,), delay=3_600_000)

    (found,) = backlog.adopt(plain, broker)

    assert (found.queue, found.waiting, found.scheduled, found.held) == ("q", 3, 1, 0)
    assert states() == {
        **{message.message_id: "waiting" for message in waiting},
        delayed.message_id: "scheduled",
    }
    assert abs(Job.objects.get(state="scheduled").due_at.timestamp() - time.time() - 3600) < 60
    start_worker()
    wait_until(lambda: Job.objects.filter(state=JobState.COMPLETED).count() == 3)
    assert sorted(ran) == [0, 1, 2]
    assert AuditEntry.objects.get().verb == "adopt backlog"


def test_nothing_is_left_that_plain_workers_could_run_too(broker, plain, client, work, ours):
    work.send(1)
    work.send_with_options(args=(2,), delay=1)
    backlog.adopt(plain, broker)

    assert not client.exists("test:q", "test:q.DQ", "test:q.adopting", "test:q.DQ.adopting")
    assert client.hlen("test:q.DQ.msgs") == 0


def test_what_failed_for_good_is_a_dead_letter_with_its_error(
    broker, plain, client, work, ours, plain_worker
):
    message = work.send(-1)
    plain_worker()
    wait_until(lambda: client.zcard("test:q.XQ") == 1)

    (found,) = backlog.adopt(plain, broker)

    assert (found.dead, found.waiting) == (1, 0)
    letter = DeadLetter.objects.get()
    assert letter.job_id == message.message_id
    assert letter.died_by == DeathCause.ATTEMPTS_EXHAUSTED
    assert client.zcard("test:q.XQ") == client.hlen("test:q.XQ.msgs") == 0


def test_a_retry_keeps_the_attempts_it_has_made_and_the_error(broker, plain, plain_broker, ours):
    message = ours.message(-1).copy(
        options={"retries": 2, "traceback": "Traceback …\nshop.errors.NoStock: tea is out\n"}
    )
    plain_broker.declare_queue("q")
    data = message.copy(options={"redis_message_id": "r-1"}).encode()
    plain_broker.client.hset("test:q.XQ.msgs", "r-1", data)
    plain_broker.client.zadd("test:q.XQ", {"r-1": time.time() * 1000})

    backlog.adopt(plain, broker)

    letter = DeadLetter.objects.get()
    assert (letter.error_class, letter.error_message) == ("NoStock", "tea is out")
    assert letter.attempts == 3


@pytest.mark.parametrize("data", [b"\x00\xff", b'{"queue_name": 3}', b"[]"])
def test_what_nobody_can_read_is_a_dead_letter_with_its_bytes(
    broker, plain, client, work, ours, data
):
    work.send(1)
    client.hset("test:q.msgs", "bad", data)
    client.lpush("test:q", "bad")

    (found,) = backlog.adopt(plain, broker)

    assert (found.unreadable, found.waiting) == (1, 1)
    letter = DeadLetter.objects.get()
    assert letter.died_by == DeathCause.UNDECODABLE
    assert bytes(letter.raw) == data


@pytest.mark.parametrize("step", ["inserted", "pushed"])
def test_an_interrupted_call_is_carried_on_and_nothing_runs_twice(
    broker, plain, work, ours, start_worker, ran, monkeypatch, step
):
    for number in range(5):
        work.send(number)
    target, name = (ledger, "insert") if step == "inserted" else (broker, "push")
    done = getattr(target, name)

    def die(*arguments):
        done(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(target, name, die)
        backlog.adopt(plain, broker)
    found = backlog.adopt(plain, broker)

    assert [(one.waiting, one.known) for one in found] == [(5, 0) if step == "inserted" else (0, 5)]
    start_worker()
    wait_until(lambda: Job.objects.filter(state=JobState.COMPLETED).count() == 5)
    assert sorted(ran) == list(range(5))
    assert backlog.adopt(plain, broker) == []


def test_what_living_workers_hold_is_theirs_and_what_dead_ones_held_is_adopted(
    broker, plain, plain_broker, client, work, ours
):
    work.send(1)
    work.send_with_options(args=(2,), delay=60_000)
    assert len(plain_broker.do_fetch("q", 1)) == len(plain_broker.do_fetch("q.DQ", 1)) == 1

    (found,) = backlog.adopt(plain, broker)
    assert (found.waiting, found.scheduled, found.held) == (0, 0, 2)

    client.zadd("test:__heartbeats__", {plain_broker.broker_id: 1})
    (found,) = backlog.adopt(plain, broker)
    assert (found.waiting, found.scheduled, found.held) == (1, 1, 0)


def test_a_dispatcher_of_ours_leaves_the_delayed_messages_of_a_dead_worker_for_adoption(
    broker, plain, plain_broker, client, work, ours
):
    work.send_with_options(args=(2,), delay=60_000)
    plain_broker.do_fetch("q.DQ", 1)
    client.zadd("test:__heartbeats__", {plain_broker.broker_id: 1})

    dispatcher.rescue(broker)
    (found,) = backlog.adopt(plain, broker)

    assert found.scheduled == 1


def test_a_dry_run_counts_and_changes_nothing(plain, work, ours):
    work.send(1)
    work.send_with_options(args=(2,), delay=60_000)
    out = io.StringIO()

    call_command(
        "queueadmin", "adopt-backlog", "--from", url_of(plain), "--from-namespace", "test",
        "--dry-run", "--format", "json", stdout=out,
    )  # fmt: skip

    (row,) = json.loads(out.getvalue())
    assert (row["queue"], row["waiting"], row["scheduled"]) == ("q", 1, 1)
    assert not Job.objects.exists()


def test_it_says_how_far_it_has_come(broker, plain, work, ours, monkeypatch):
    monkeypatch.setattr("queueadmin.brokers.plain._BATCH", 2)
    monkeypatch.setattr(backlog, "_BATCH", 2)
    for number in range(3):
        work.send(number)
    work.send_with_options(args=(9,), delay=60_000)
    coming, going = [], []

    backlog.adopt(plain, broker, tell=lambda done, total: coming.append((done, total)))
    backlog.hand_back(plain, broker, tell=lambda done, total: going.append((done, total)))

    assert coming == [(2, 4), (3, 4), (4, 4)]
    assert going == [(2, 4), (4, 4)]


@pytest.fixture
def command(plain, capsys, monkeypatch):
    """Run a sub-command in a terminal; return its rows, its exit code and what people see."""
    # By this the bar takes any stream for a terminal.
    monkeypatch.setenv("FORCE_COLOR", "1")

    def run(verb, direction):
        code = 0
        arguments = [direction, url_of(plain), f"{direction}-namespace", "test"]
        try:
            call_command("queueadmin", verb, *arguments, "--format", "json", "--reason", "move")
        except SystemExit as ended:
            code = ended.code
        seen = capsys.readouterr()
        return json.loads(seen.out), code, seen.err

    return run


def test_the_command_adopts_under_a_bar_and_answers_in_json(
    broker, plain_broker, work, ours, command
):
    in_a_hand = work.send(1)
    plain_broker.do_fetch("q", 1)
    work.send(2)
    work.send_with_options(args=(3,), delay=60_000)

    (row,), code, seen = command("adopt-backlog", "--from")

    nothing = {"dead": 0, "unreadable": 0, "known": 0, "dry_run": False}
    assert row == {"queue": "q", "waiting": 1, "scheduled": 1, "held": 1, **nothing}
    assert code == PARTLY
    assert "adopting" in seen
    assert "100%" in seen
    assert sorted(states().values()) == ["scheduled", "waiting"]
    assert in_a_hand.message_id not in states()
    assert AuditEntry.objects.get().reason == "move"

    plain_broker.client.zadd("test:__heartbeats__", {plain_broker.broker_id: 1})
    (row,), code, _ = command("adopt-backlog", "--from")
    assert (row["waiting"], row["held"], code) == (1, 0, 0)
    assert command("adopt-backlog", "--from")[:2] == ([], 0)


def url_of(plain):
    found = plain._client.connection_pool.connection_kwargs
    if "path" in found:
        return f"unix://{found['path']}"
    return f"redis://{found['host']}:{found['port']}/{found['db']}"


@pytest.mark.parametrize("verb", [backlog.adopt, backlog.hand_back])
def test_the_permission_is_asked_for(broker, plain, verb):
    with pytest.raises(NotPermitted):
        verb(plain, broker, by=make_user("anna"))


# --- And back -------------------------------------------------------------------------
@pytest.mark.every_provider
def test_open_jobs_are_handed_back_and_run_by_plain_workers_once(
    broker, plain, ours, work, plain_worker, ran
):
    sent = ours.send(1)
    unpushed = ours.message(2)
    broker._pushing_paused_until = time.monotonic() + 60
    broker.enqueue(unpushed)
    later = ours.send_with_options(args=(3,), delay=3_600_000)
    retried = ours.send_with_options(args=(4,), delay=3_600_000)
    Job.objects.filter(pk=retried.message_id).update(attempts=1, due_at="2020-01-01T00:00Z")

    found = backlog.hand_back(plain, broker)

    assert (found.handed_back, found.held) == (4, 0)
    assert set(states().values()) == {"cancelled"}
    assert broker.transport.fetch("q", 9) == []
    plain_worker()
    wait_until(lambda: len(ran) == 3)
    assert sorted(ran) == [1, 2, 4]
    assert backlog.hand_back(plain, broker).handed_back == 0
    assert {sent.message_id, later.message_id} <= states().keys()


@pytest.mark.every_provider
def test_what_our_workers_hold_is_not_handed_back(broker, make_broker, plain, client, ours):
    ours.send(1)
    other = make_broker()
    other.transport.heartbeat()
    assert len(other.transport.fetch("q", 1)) == 1

    found = backlog.hand_back(plain, broker)

    assert (found.handed_back, found.held) == (0, 1)
    assert not client.exists("test:q")
    assert set(states().values()) == {"waiting"}


@pytest.mark.parametrize("is_pushed", [False, True])
def test_an_interrupted_hand_back_is_carried_on_and_pushes_nothing_twice(
    broker, plain, client, ours, work, plain_worker, ran, monkeypatch, is_pushed
):
    ours.send(1)
    push = plain.hand_back

    def die(name, messages):
        if is_pushed:
            push(name, messages)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(plain, "hand_back", die)
        backlog.hand_back(plain, broker)
    if is_pushed:
        plain_worker()
        wait_until(lambda: ran == [1] and client.hlen("test:q.msgs") == 0)

    assert backlog.hand_back(plain, broker).handed_back == 1

    if not is_pushed:
        plain_worker()
    wait_until(lambda: client.hlen("test:q.msgs") == 0)
    assert ran == [1]
    assert not Attempt.objects.exists()


def test_the_command_hands_back_under_a_bar_and_answers_in_json(
    broker, make_broker, client, ours, command
):
    ours.send(1)
    other = make_broker()
    other.transport.heartbeat()
    assert len(other.transport.fetch("q", 1)) == 1
    ours.send(2)
    ours.send_with_options(args=(3,), delay=60_000)

    (row,), code, seen = command("hand-back", "--to")

    assert row == {"handed_back": 2, "held": 1, "unreadable": 0, "dry_run": False}
    assert code == PARTLY
    assert "handing back" in seen
    assert "100%" in seen
    assert (client.llen("test:q"), client.llen("test:q.DQ")) == (1, 1)
    assert sorted(states().values()) == ["cancelled", "cancelled", "waiting"]
    assert AuditEntry.objects.get().reason == "move"


def test_what_was_handed_back_comes_again_as_a_job_of_its_own(
    broker, plain, ours, work, start_worker, ran
):
    message = ours.send(1)
    backlog.hand_back(plain, broker)

    (found,) = backlog.adopt(plain, broker)

    assert (found.waiting, found.known) == (1, 0)
    assert Job.objects.get(state=JobState.WAITING).parent == message.message_id
    start_worker()
    wait_until(lambda: ran == [1])
