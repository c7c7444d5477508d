"""Recovery runs one at a time, and closes what has ended and still lies in the broker."""

import time
from datetime import timedelta

import dramatiq
import pytest

from queueadmin import dispatcher, leases, ledger, recovery
from queueadmin.brokers.transport import BrokerUnavailable
from queueadmin.exceptions import NotPermitted
from queueadmin.models import Job, Lease, RecoveryRun
from queueadmin.states import JobState
from queueadmin.testing import run_jobs
from tests.queueadmin.rows import make_user

pytestmark = pytest.mark.django_db(transaction=True)

CLOSED = "finished, still in the broker"


@pytest.fixture
def ran():
    return []


@pytest.fixture
def work(broker, ran):
    @dramatiq.actor(queue_name="q", broker=broker)
    def work():
        ran.append(1)

    return work


@pytest.fixture
def restored(broker, work):
    """A job that has run, and whose message is back: the server came up with an old snapshot."""
    message = work.send()
    run_jobs()
    assert Job.objects.get().state == JobState.COMPLETED
    assert broker.transport.size("q") == 1
    return message


def test_the_message_of_a_job_that_has_ended_is_taken_out(broker, restored, start_worker, ran):
    assert recovery.recover(dry_run=True).found[CLOSED] == 1
    assert broker.transport.size("q") == 1

    assert recovery.recover().found[CLOSED] == 1

    assert broker.transport.size("q") == 0
    assert recovery.recover().found[CLOSED] == 0
    assert recovery.recover(dry_run=True).found[CLOSED] == 0
    assert broker.transport.fetch("q", 9) == []


def test_what_a_worker_holds_is_left_to_it(broker, make_broker, restored):
    other = make_broker()
    other.transport.heartbeat()
    assert len(other.transport.fetch("q", 9)) == 1

    assert recovery.recover().found[CLOSED] == 0

    assert len(other.transport.in_hand("q")) == 1


def test_an_old_number_is_taken_out_and_the_current_one_stays(broker, work):
    message = work.send()
    broker.push(ledger.rescue([(message.message_id, 1)]))
    assert broker.transport.size("q") == 2

    assert recovery.recover().found[CLOSED] == 1

    ((parcel_id, _),) = broker.transport.fetch("q", 9)
    assert parcel_id == f"{message.message_id}:2?"


def test_what_the_ledger_does_not_know_stays(broker, restored):
    Job.objects.all().delete()

    assert recovery.recover().found[CLOSED] == 0

    assert broker.transport.size("q") == 1


# --- One at a time ----------------------------------------------------------------------
def during(monkeypatch, act):
    """Do something in the middle of a run."""
    rescue = dispatcher.rescue

    def wrapped(broker):
        monkeypatch.setattr(dispatcher, "rescue", rescue)
        act()
        return rescue(broker)

    monkeypatch.setattr(dispatcher, "rescue", wrapped)


def test_each_category_is_recorded_with_how_long_it_took(broker, work, monkeypatch):
    during(monkeypatch, lambda: time.sleep(0.05))

    recovery.recover()

    run = RecoveryRun.objects.get()
    assert run.durations_ms.keys() == run.found.keys()
    assert run.durations_ms["dead workers' jobs"] >= 50
    total = (run.finished_at - run.started_at).total_seconds() * 1000
    assert sum(run.durations_ms.values()) <= total + 1


def test_while_one_runs_another_does_not_begin(broker, work, monkeypatch):
    seen = []
    during(monkeypatch, lambda: seen.append(recovery.recover()))

    assert recovery.recover() is not None

    assert seen == [None]
    assert RecoveryRun.objects.count() == 1
    assert recovery.recover() is not None


def test_one_that_was_overtaken_leaves_the_rest_to_the_other(broker, work, monkeypatch):
    def overtake():
        Lease.objects.filter(role="recovery").update(expires_at="2020-01-01T00:00Z")
        assert leases.acquire("recovery", "another", timedelta(minutes=5))

    during(monkeypatch, overtake)

    with pytest.raises(recovery.RecoveryOvertaken):
        recovery.recover()

    run = RecoveryRun.objects.get()
    assert set(run.found) == {"overdue", "dead workers' jobs"}
    assert run.error.startswith("RecoveryOvertaken")
    assert recovery.recover() is None


def test_what_was_found_before_a_failure_is_kept(broker, work, monkeypatch):
    def fail():
        raise BrokerUnavailable("away")

    during(monkeypatch, fail)

    with pytest.raises(BrokerUnavailable):
        recovery.recover()

    run = RecoveryRun.objects.get()
    assert run.found == {"overdue": 0}
    # How long it took until it failed, too.
    assert run.durations_ms.keys() == {"overdue", "dead workers' jobs"}
    assert recovery.recover() is not None


@pytest.mark.parametrize("is_dry", [True, False])
def test_a_run_in_a_persons_name_needs_that_persons_permission(broker, is_dry):
    with pytest.raises(NotPermitted, match=r"queueadmin\.run_recovery"):
        recovery.recover(by=make_user("eve", "view_recoveryrun"), dry_run=is_dry)
    assert not RecoveryRun.objects.exists()

    assert recovery.recover(by=make_user("mira", "run_recovery"), dry_run=is_dry) is not None
