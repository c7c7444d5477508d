"""Something that a job does outside of the database happens once."""

import io
import json
import threading
from contextlib import suppress

import dramatiq
import pytest
from django.core.management import call_command
from django.db import connection, transaction

from queueadmin import deadletters, effects, ledger
from queueadmin.effects import NothingDone, once
from queueadmin.exceptions import NotPermitted
from queueadmin.models import AuditEntry, DeadLetter, Effect, Job
from queueadmin.states import DeathCause, EffectState, JobState
from queueadmin.testing import run_jobs
from tests.queueadmin.rows import make_user


@pytest.fixture
def charged():
    return []


@pytest.fixture
def charge(broker, charged):
    """An actor that charges once and may fail afterwards; `answers` says how the provider does."""

    def provider(amount):
        answer = charge.answers.pop(0) if charge.answers else "receipt"
        if isinstance(answer, Exception):
            raise answer
        charged.append(amount)
        return answer

    @dramatiq.actor(queue_name="q", broker=broker, max_retries=1, min_backoff=60_000)
    def charge(amount):
        receipt = once("charge", provider, amount)
        charge.receipts.append(receipt)
        if charge.failures:
            raise charge.failures.pop()

    charge.answers, charge.failures, charge.receipts = [], [], []
    return charge


def run_again():
    Job.objects.update(due_at="2020-01-01T00:00Z")
    run_jobs()


@pytest.mark.django_db
def test_a_second_run_skips_what_is_done_and_gets_what_it_returned(charge, charged):
    charge.failures = [RuntimeError("after the charge")]
    charge.send(5)
    run_jobs()
    run_again()

    assert charged == [5]
    assert charge.receipts == ["receipt", "receipt"]
    assert Job.objects.get().state == JobState.COMPLETED


@pytest.mark.django_db
def test_an_error_that_proves_that_nothing_happened_lets_the_next_run_try(charge, charged):
    charge.answers = [NothingDone("refused")]
    charge.send(5)
    run_jobs()
    assert not Effect.objects.exists()
    run_again()

    assert charged == [5]


@pytest.mark.django_db
def test_after_any_other_error_a_person_decides(charge, charged):
    charge.answers = [TimeoutError("no answer")]
    charge.send(5)
    run_jobs()
    run_again()

    letter = DeadLetter.objects.get()
    assert (letter.died_by, letter.error_class) == (DeathCause.REJECTED, "EffectUnknown")
    assert charged == []


@pytest.mark.django_db
@pytest.mark.parametrize(("was_done", "amounts"), [(True, []), (False, [5])])
def test_what_was_settled_is_done_by_the_requeued_job_or_skipped(
    charge, charged, was_done, amounts
):
    charge.answers = [TimeoutError("no answer")]
    job = charge.send(5).message_id
    run_jobs()
    run_again()

    assert effects.settle(job, "charge", was_done=was_done, by=None, reason="asked the provider")
    assert not effects.settle(job, "charge", was_done=was_done, by=None)
    deadletters.requeue([DeadLetter.objects.get().pk], by=None)
    run_jobs()

    assert charged == amounts
    assert Job.objects.get().state == JobState.COMPLETED
    assert AuditEntry.objects.filter(verb="settle effect").count() == 1


@pytest.mark.django_db
def test_the_command_settles_what_is_unknown_once(charge):
    charge.answers = [TimeoutError("no answer")]
    job = charge.send(5).message_id
    run_jobs()

    assert command("settle-effect", job, "charge", "--done", "--dry-run")["changed"]
    assert command("job", job)["effect_list"][0]["state"] == EffectState.BEGUN
    assert command("settle-effect", job, "charge", "--done", "--reason", "asked")["changed"]
    assert command("job", job)["effect_list"][0]["state"] == EffectState.DONE
    with pytest.raises(SystemExit) as ended:
        command("settle-effect", job, "charge", "--undone")
    assert ended.value.code == 1


def command(*arguments):
    out = io.StringIO()
    call_command("queueadmin", *arguments, "--format", "json", stdout=out)
    (row,) = json.loads(out.getvalue())
    return row


@pytest.mark.django_db
def test_only_who_may_requeue_may_settle(charge):
    with pytest.raises(NotPermitted):
        effects.settle("a", "charge", was_done=True, by=make_user("anna"))


@pytest.mark.django_db
def test_effects_of_another_name_or_job_are_others(broker):
    done = []

    @dramatiq.actor(queue_name="q", broker=broker)
    def work():
        once("a", done.append, 1)
        once("b", done.append, 2)
        once("a", done.append, 3)

    work.send()
    work.send()
    run_jobs()

    assert sorted(done) == [1, 1, 2, 2]


@pytest.mark.django_db
def test_outside_of_a_job_there_is_no_once():
    with pytest.raises(RuntimeError, match="none runs"):
        once("charge", int)


@pytest.mark.django_db
def test_what_a_sensitive_job_got_is_not_kept(broker):
    @dramatiq.actor(queue_name="q", broker=broker, sensitive=["card"])
    def work(card):
        once("charge", str, card)

    work.send("4111")
    run_jobs()

    effect = Effect.objects.get()
    assert (effect.state, effect.result) == (EffectState.DONE, None)


class Race:
    """Two runs of one job at once: one in a worker that is taken for dead, and the next."""

    def __init__(self, broker):
        self.done = []
        self.begun, self.may_end = threading.Event(), threading.Event()

        def effect():
            self.begun.set()
            self.may_end.wait(20)
            self.done.append(1)
            return "receipt"

        @dramatiq.actor(queue_name="q", broker=broker)
        def work():
            once("charge", effect)

        self.message = work.send()

    def first(self):
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert self.begun.wait(20)

    def _run(self):
        # Where its outcome is held back, the job would be taken again.
        with suppress(RuntimeError):
            run_jobs(limit=1)
        connection.close()

    def end_first(self):
        self.may_end.set()
        self.thread.join(20)

    def second(self):
        assert ledger.rescue([(self.message.message_id, 1)])
        run_jobs()


@pytest.mark.django_db(transaction=True)
def test_who_comes_while_the_first_is_at_it_does_nothing_and_says_so(broker):
    race = Race(broker)
    race.first()

    race.second()
    race.end_first()

    assert race.done == [1]
    assert DeadLetter.objects.get().error_class == "EffectUnknown"
    assert Effect.objects.get().state == EffectState.DONE
    deadletters.requeue([DeadLetter.objects.get().pk], by=None)
    run_jobs()
    assert race.done == [1]
    assert Job.objects.get().state == JobState.COMPLETED


@pytest.mark.django_db(transaction=True)
def test_who_comes_after_the_first_has_done_it_skips_it(broker, monkeypatch):
    race = Race(broker)
    commit, late = ledger.commit, []
    monkeypatch.setattr(ledger, "commit", late.append)
    race.first()
    race.end_first()
    monkeypatch.setattr(ledger, "commit", commit)

    race.second()

    assert race.done == [1]
    assert Job.objects.get().state == JobState.COMPLETED
    assert len(commit(late[0]).stale) == 1


@pytest.mark.django_db(transaction=True)
def test_in_a_transaction_nothing_is_begun(broker):
    @dramatiq.actor(queue_name="q", broker=broker, max_retries=0)
    def work():
        with transaction.atomic():
            once("charge", int)

    work.send()
    run_jobs()

    assert DeadLetter.objects.get().error_class == "RuntimeError"
    assert not Effect.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_an_effect_that_somebody_settled_meanwhile_is_not_overwritten(broker):
    race = Race(broker)
    race.first()
    effects.settle(race.message.message_id, "charge", was_done=True, by=None)
    race.end_first()

    assert (Effect.objects.get().state, Effect.objects.get().result) == (EffectState.DONE, None)
    assert Job.objects.get().state == JobState.COMPLETED
