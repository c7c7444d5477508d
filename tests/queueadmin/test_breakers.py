"""An outage pauses its queue instead of turning the backlog into dead letters."""

import time
from datetime import timedelta

import dramatiq
import pytest

from queueadmin import breakers, registry
from queueadmin.clock import now
from queueadmin.exceptions import NotPermitted, PermanentError
from queueadmin.models import AuditEntry, DeadLetter, Job, Queue, Worker
from queueadmin.policies import Breaker, Policy, fixed
from queueadmin.states import JobState

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.every_provider]


def wait_until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def guarded(settings, monkeypatch):
    monkeypatch.setattr(registry, "BEAT_SECONDS", 0.2)
    breaker = Breaker(share=0.5, minimum=5, window=60, probe_every=1)
    policy = Policy(attempts=4, backoff=fixed(0.5), breaker=breaker)
    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "QUEUES": {"mail": policy}}
    return breaker


def state() -> str:
    row = Queue.objects.filter(name="mail").first()
    return row.breaker_state if row else "closed"


def test_an_outage_opens_the_breaker_and_after_it_every_job_completes(
    guarded, broker, start_worker
):
    is_down, runs = [True], []

    def send(number):
        runs.append(number)
        time.sleep(0.1)
        if is_down[0]:
            raise ConnectionError(f"refused by host {number}")

    actor = dramatiq.actor(send, queue_name="mail", broker=broker)
    for number in range(150):
        actor.send(number)
    start_worker(threads=2)

    wait_until(lambda: state() == "open")
    row = Queue.objects.get(name="mail")
    assert "ConnectionError: refused by host" in row.breaker_cause
    # Probes go one at a time, and their failures open it again.
    wait_until(lambda: AuditEntry.objects.filter(verb="open breaker").count() >= 2)
    wait_until(lambda: state() == "open")
    during = len(runs)
    is_down[0] = False

    wait_until(lambda: Job.objects.filter(state=JobState.COMPLETED).count() == 150)
    assert during < 150  # the backlog was spared
    assert DeadLetter.objects.count() == 0
    assert state() == "closed"
    assert AuditEntry.objects.filter(verb="close breaker").count() == 1


def _worker(**tally) -> Worker:
    at = now()
    return Worker.objects.create(
        id=f"host:1:{Worker.objects.count()}",
        host="host",
        pid=1,
        started_at=at,
        seen_at=at,
        threads=1,
        tallies={"mail": tally},
    )


def _causes(**counts) -> dict:
    return {key: {"count": count, "text": f"{key}: down"} for key, count in counts.items()}


@pytest.mark.parametrize(
    ("attempts", "causes", "opens"),
    [
        (4, {"Down": 4}, False),  # too few to say anything
        (10, {"Down": 4}, False),  # too small a share
        (10, {"Down": 5}, True),
        (10, {"Down": 3, "Other": 3}, False),  # not one and the same cause
    ],
)
def test_it_opens_for_enough_attempts_with_one_cause_added_up_over_the_fleet(
    guarded, attempts, causes, opens
):
    half = {key: count // 2 for key, count in causes.items() if count // 2}
    rest = {key: count - half.get(key, 0) for key, count in causes.items()}
    _worker(stage="closed:", attempts=attempts // 2, causes=_causes(**half))
    _worker(stage="closed:", attempts=attempts - attempts // 2, causes=_causes(**rest))

    assert breakers.tend() == int(opens)

    assert (state() == "open") is opens


def test_counts_of_an_earlier_stage_or_of_a_lost_process_do_not_count(guarded):
    _worker(stage="open:2026-01-01", attempts=50, causes=_causes(Down=50))
    lost = _worker(stage="closed:", attempts=50, causes=_causes(Down=50))
    Worker.objects.filter(id=lost.id).update(seen_at=now() - timedelta(minutes=1))

    assert breakers.tend() == 0


def test_a_refusal_of_the_probe_closes_it_because_somebody_answers(guarded, broker, start_worker):
    def send():
        raise PermanentError("unknown recipient")

    actor = dramatiq.actor(send, queue_name="mail", broker=broker)
    Queue.objects.create(
        name="mail", breaker_state="open", breaker_changed_at=now(), breaker_cause="down"
    )
    actor.send()
    start_worker(threads=1)

    wait_until(lambda: state() == "closed")
    wait_until(lambda: DeadLetter.objects.count() == 1)


def test_two_leaders_make_one_change(guarded):
    _worker(stage="closed:", attempts=10, causes=_causes(Down=10))
    row = Queue(name="mail")

    first = breakers._change(row, Queue.Breaker.OPEN, "down")
    second = breakers._change(row, Queue.Breaker.OPEN, "down")

    assert (first, second) == (True, False)
    assert AuditEntry.objects.filter(verb="open breaker").count() == 1


def test_staff_close_it_with_permission_once(guarded, django_user_model):
    Queue.objects.create(
        name="mail", breaker_state="open", breaker_changed_at=now(), breaker_cause="down"
    )
    clerk = django_user_model.objects.create_user("clerk")
    boss = django_user_model.objects.create_superuser("boss")

    with pytest.raises(NotPermitted):
        breakers.close("mail", by=clerk)
    assert breakers.close("mail", by=boss, reason="provider is back")
    assert not breakers.close("mail", by=boss)

    assert state() == "closed"
    assert AuditEntry.objects.get().reason == "provider is back"


def test_a_worker_that_starts_while_it_is_open_starts_none_of_its_jobs(
    guarded, broker, start_worker, settings
):
    long = Breaker(probe_every=600)
    policy = Policy(breaker=long)
    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "QUEUES": {"mail": policy, "other": Policy()}}
    Queue.objects.create(name="mail", breaker_state="open", breaker_changed_at=now())
    runs = []
    for queue in ("mail", "other"):
        dramatiq.actor(
            lambda queue=queue: runs.append(queue),
            actor_name=queue,
            queue_name=queue,
            broker=broker,
        ).send()
    start_worker(threads=2)

    wait_until(lambda: "other" in runs)
    time.sleep(0.5)  # nothing may happen: there is no event to wait for

    assert runs == ["other"]
    assert Job.objects.get(queue="mail").attempts == 0
