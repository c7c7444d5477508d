"""Who may declare whom dead, and when."""

import dramatiq
import pytest
from django.db import OperationalError

from queueadmin import dispatcher, ledger
from queueadmin.brokers.transport import BrokerUnavailable
from queueadmin.dispatcher import Heart
from queueadmin.models import Job
from tests.config.processes import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.every_provider]

TIMEOUT_MS = 10_000


@pytest.fixture
def seconds(monkeypatch):
    """Let the test move the monotonic clock of the heart."""
    now = [1000.0]
    monkeypatch.setattr(dispatcher.time, "monotonic", lambda: now[0])

    def pass_by(seconds, heart=None):
        for _ in range(round(seconds)):
            now[0] += 1
            if heart is not None:
                heart.beat()

    return pass_by


def test_a_process_that_has_just_begun_may_judge(broker, seconds):
    heart = Heart(broker)
    assert not heart.is_steady(TIMEOUT_MS)

    heart.beat()

    assert heart.is_steady(TIMEOUT_MS)


def test_after_an_outage_everybody_has_the_time_out_to_show_that_they_live(
    broker, seconds, monkeypatch
):
    heart = Heart(broker)
    heart.beat()
    with monkeypatch.context() as outage:
        outage.setattr(broker.transport, "heartbeat", _away)
        seconds(2, heart)
        assert not heart.is_steady(TIMEOUT_MS)

    seconds(9, heart)
    assert not heart.is_steady(TIMEOUT_MS)
    seconds(3, heart)
    assert heart.is_steady(TIMEOUT_MS)


def _away():
    raise BrokerUnavailable("away")


def test_a_process_that_was_frozen_judges_nobody_at_first(broker, seconds):
    heart = Heart(broker)
    heart.beat()

    seconds(60)
    assert not heart.is_steady(TIMEOUT_MS)
    heart.beat()
    assert not heart.is_steady(TIMEOUT_MS)
    seconds(11, heart)
    assert heart.is_steady(TIMEOUT_MS)


def test_what_a_silent_worker_holds_is_left_alone_until_one_may_judge(broker, monkeypatch):
    @dramatiq.actor(queue_name="q", broker=broker)
    def work(): ...

    work.send()
    mine, broker.transport.worker_id = broker.transport.worker_id, "gone:1:x"
    broker.transport.heartbeat()
    broker.transport.fetch("q", 1)
    broker.transport.worker_id = mine
    broker.transport.declare_dead("gone:1:x")
    broker.heart = Heart(broker)

    assert dispatcher.rescue(broker) == 0
    broker.heart.beat()
    assert dispatcher.rescue(broker) == 1
    assert Job.objects.get().dispatch == 2


def test_nothing_is_fetched_before_the_clock_is_measured_and_the_controls_are_known(
    broker, start_worker, monkeypatch
):
    is_away, order = [True], []
    synchronise, refresh = dispatcher.clock.synchronise, broker.controls.refresh

    def measured():
        if is_away[0]:
            raise OperationalError("the ledger is away")
        order.append("clock")
        return synchronise()

    def read():
        order.append("controls")
        return refresh()

    monkeypatch.setattr(dispatcher.clock, "synchronise", measured)
    monkeypatch.setattr(broker.controls, "refresh", read)
    actor = dramatiq.actor(
        lambda: order.append("job"), actor_name="work", queue_name="q", broker=broker
    )
    actor.send()
    start_worker(threads=1)
    assert not broker.controls.is_known
    is_away[0] = False
    broker.join("q", timeout=20_000)

    assert order[0] == "clock"
    assert order.index("controls") < order.index("job")


def test_a_job_that_still_asks_whether_it_may_run_is_not_counted_as_running(
    broker, start_worker, monkeypatch
):
    seen = []
    claim = ledger.claim

    def look(job, dispatch, *, worker):
        seen.append(broker.scoreboard.running())
        return claim(job, dispatch, worker=worker)

    monkeypatch.setattr(ledger, "claim", look)
    running = []
    actor = dramatiq.actor(
        lambda: running.extend(broker.scoreboard.running()),
        actor_name="work",
        queue_name="q",
        broker=broker,
    )
    message = actor.send_with_options(delay=3_600_000)
    Job.objects.update(is_suspect=True, crashes=1, due_at="2020-01-01T00:00Z")
    start_worker(threads=1)
    wait_until(lambda: Job.objects.get().state == "completed")

    assert seen == [[]]
    assert [run.job for run in running] == [message.message_id]
