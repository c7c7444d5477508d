"""What an actor declares sensitive is unreadable where it lies and masked where it is shown."""

import io
import json
import logging
import time
from base64 import urlsafe_b64encode
from urllib.parse import quote

import dramatiq
import pytest
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.urls import reverse
from dramatiq import pipeline
from dramatiq.results import ResultFailure

from queueadmin import deadletters, events, ledger, payloads, rekeying
from queueadmin.exceptions import InvalidMessage, Undecryptable
from queueadmin.masking import MASK
from queueadmin.models import Attempt, AuditEntry, DeadLetter, Job
from queueadmin.states import DeadLetterStatus, DeathCause, JobState
from queueadmin.testing import run_jobs
from tests.queueadmin.rows import make_user

pytestmark = pytest.mark.django_db(transaction=True)

OLD, NEW = (urlsafe_b64encode(letter * 32).decode() for letter in (b"o", b"n"))
PHONE = "+49 170 5550123"


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def use_keys(settings):
    def use(*keys):
        settings.QUEUEADMIN = {**settings.QUEUEADMIN, "ENCRYPTION_KEYS": list(keys)}

    use(OLD)
    return use


@pytest.fixture
def seen():
    return []


@pytest.fixture
def text_to(broker, seen):
    @dramatiq.actor(queue_name="q", broker=broker, sensitive=["phone"], max_retries=0)
    def text_to(order_id: int, phone: str):
        seen.append((order_id, phone))
        return {"sent to": phone}

    return text_to


@pytest.fixture
def refuse(broker):
    @dramatiq.actor(queue_name="q", broker=broker, sensitive=["phone"], max_retries=0)
    def refuse(phone: str):
        raise ValueError(f"{phone!r} is not on WhatsApp; tried {quote(phone)}")

    return refuse


def everything_stored(broker) -> str:
    """Return whatever the tables and the message server hold, as one text."""
    stored = [
        repr(row)
        for model in (Job, Attempt, DeadLetter, AuditEntry)
        for row in model.objects.values()
    ]
    client = broker.transport._client
    for key in client.keys("test:*"):
        if client.type(key) == b"hash":
            stored.append(repr(client.hgetall(key)))
    return "\n".join(stored)


# --- At rest ----------------------------------------------------------------------------
def test_a_sensitive_payload_is_a_token_in_ledger_and_broker_and_runs(
    broker, text_to, use_keys, start_worker, seen
):
    message = text_to.send(12, PHONE)

    assert "5550123" not in everything_stored(broker)
    assert Job.objects.get().is_sealed
    start_worker()
    assert message.get_result(block=True) == {"sent to": PHONE}
    assert seen == [(12, PHONE)]
    assert "5550123" not in everything_stored(broker)


def test_without_a_key_and_for_other_actors_nothing_is_encrypted(broker, text_to, use_keys):
    @dramatiq.actor(queue_name="q", broker=broker)
    def plain(order_id): ...

    plain.send(12)
    use_keys()
    text_to.send(12, PHONE)

    assert not Job.objects.filter(is_sealed=True).exists()
    assert Job.objects.get(actor="text_to").payload["args"] == [12, PHONE]


def test_a_sealed_job_is_retried_rescued_promoted_and_requeued_without_its_key(
    broker, refuse, use_keys
):
    refuse.send_with_options(args=(PHONE,), delay=60_000)
    use_keys()

    (parcel,) = ledger.promote_due(Job.objects.get().due_at, 10)
    (again,) = ledger.rescue([(parcel.job, parcel.dispatch)])
    assert json.loads(again.data)["options"]["sealed"]

    use_keys(OLD)
    run_jobs()
    use_keys()
    assert deadletters.requeue([DeadLetter.objects.get().pk], by=None).done == 1
    (requeued,) = ledger.parcels_of(Job.objects.all())
    use_keys(OLD)
    assert payloads.open_message(dramatiq.Message.decode(requeued.data)).args == (PHONE,)


def test_every_retry_gets_the_arguments(broker, use_keys, seen):
    @dramatiq.actor(
        queue_name="q",
        broker=broker,
        sensitive=["phone"],
        max_retries=2,
        min_backoff=0,
        max_backoff=0,
    )
    def flaky(phone):
        seen.append(phone)
        raise ValueError("busy")

    flaky.send(PHONE)
    while run_jobs():
        Job.objects.update(due_at="2020-01-01T00:00Z")

    assert seen == [PHONE] * 3


def test_what_a_sensitive_job_leaves_behind_is_as_sensitive(broker, text_to, use_keys, seen):
    @dramatiq.actor(queue_name="q", broker=broker)
    def after(message, result):
        seen.append((message["args"], result))

    @dramatiq.actor(queue_name="q", broker=broker)
    def last(result):
        seen.append(result)

    first = text_to.message_with_options(args=(12, PHONE), on_success=after)
    pipeline([first, last.message()]).run()
    assert run_jobs() == 3

    assert sorted(map(str, seen[1:])) == sorted(
        map(str, [([12, PHONE], {"sent to": PHONE}), {"sent to": PHONE}])
    )
    assert "5550123" not in everything_stored(broker)
    assert "5550123" not in json.dumps([payloads.masked(job.payload) for job in Job.objects.all()])


def test_a_message_that_carries_a_sensitive_one_is_sealed_too(broker, text_to, use_keys, seen):
    @dramatiq.actor(queue_name="q", broker=broker)
    def first(): ...

    pipeline(
        [first.message(), text_to.message_with_options(args=(1, PHONE), pipe_ignore=True)]
    ).run()

    job = Job.objects.get()
    assert job.is_sealed
    assert "5550123" not in everything_stored(broker)
    assert "5550123" not in json.dumps(payloads.masked(job.payload))
    run_jobs()
    assert seen == [(1, PHONE)]


def test_a_message_of_plain_dramatiq_is_sealed_when_it_is_adopted(
    broker, text_to, use_keys, start_worker, seen
):
    message = text_to.message(7, PHONE).copy(options={"redis_message_id": "r-1"})
    client = broker.transport._client
    client.hset("test:q.msgs", "r-1", message.encode())
    client.rpush("test:q.1", "r-1")
    start_worker()

    wait_until(lambda: seen)
    wait_until(Job.objects.filter(pk=message.message_id, state=JobState.COMPLETED).exists)
    assert "5550123" not in everything_stored(broker)


def test_nobody_else_writes_the_token(broker, text_to):
    with pytest.raises(InvalidMessage) as caught:
        broker.enqueue(text_to.message_with_options(args=(1, "x"), sealed="abc"))

    assert caught.value.field == "sealed"


# --- Keys -------------------------------------------------------------------------------
def test_a_missing_key_parks_the_job_until_it_is_back(broker, text_to, use_keys, start_worker):
    text_to.send(12, PHONE)
    use_keys(NEW)
    start_worker()

    wait_until(Job.objects.filter(state=JobState.SCHEDULED).exists)
    assert not DeadLetter.objects.exists()


def test_a_key_missing_for_long_makes_a_dead_letter_that_runs_once_it_is_back(
    broker, text_to, use_keys, start_worker, seen, settings
):
    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "UNKNOWN_ACTOR_GRACE": 0}
    text_to.send(12, PHONE)
    use_keys(NEW)
    start_worker()

    wait_until(DeadLetter.objects.exists)
    letter = DeadLetter.objects.get()
    assert (letter.died_by, letter.actor) == (DeathCause.UNDECODABLE, "text_to")
    assert "not among QUEUEADMIN['ENCRYPTION_KEYS']" in letter.error_message
    assert not seen

    use_keys(NEW, OLD)
    assert deadletters.requeue([letter.pk], by=None).done == 1
    wait_until(lambda: seen == [(12, PHONE)])
    wait_until(DeadLetter.objects.filter(status=DeadLetterStatus.RECOVERED).exists)


def test_a_token_that_was_changed_is_not_run(broker, text_to, use_keys):
    text_to.send(12, PHONE)
    data = bytes(Job.objects.get().message).replace(b".gAAAA", b".gAAAB")

    with pytest.raises(Undecryptable, match="was changed"):
        payloads.open_message(dramatiq.Message.decode(data))


def test_a_change_of_keys_lets_the_old_one_go(broker, text_to, use_keys, seen):
    done = text_to.send(1, PHONE)
    run_jobs()
    waiting = text_to.send(2, PHONE)
    use_keys(NEW, OLD)
    out = io.StringIO()
    before = list(Job.objects.order_by("pk").values_list("state", "dispatch", "attempts"))

    call_command("reencrypt", dry_run=True, format="json", stdout=out)
    call_command("reencrypt", format="json", stdout=out)
    call_command("reencrypt", format="json", stdout=out)

    counts = [json.loads(line) for line in out.getvalue().replace("}{", "}\n{").splitlines()]
    assert [count["renewed"] for count in counts] == [2, 2, 0]
    assert counts[1]["unfinished"] == 1
    assert list(Job.objects.order_by("pk").values_list("state", "dispatch", "attempts")) == before
    use_keys(NEW)
    assert done.get_result() == {"sent to": PHONE}
    run_jobs()
    assert seen[1:] == [(2, PHONE)]
    assert waiting.get_result() == {"sent to": PHONE}


def test_what_was_stored_before_there_was_a_key_is_encrypted_with_the_first_one(
    broker, text_to, use_keys
):
    use_keys()
    text_to.send(1, PHONE)
    run_jobs()
    use_keys(NEW)

    assert rekeying.rekey().renewed == 1

    broker.transport._client.flushdb()
    assert "5550123" not in everything_stored(broker)
    assert Job.objects.get().payload["args"] == [1, PHONE]


def test_reencrypting_counts_what_no_key_opens_and_says_so(broker, text_to, use_keys):
    text_to.send(1, PHONE)
    use_keys(NEW)

    with pytest.raises(CommandError, match="1 payloads are encrypted with a key"):
        call_command("reencrypt", stdout=io.StringIO())
    use_keys()
    with pytest.raises(CommandError, match="is empty"):
        call_command("reencrypt")


@pytest.mark.parametrize("keys", [["short"], [NEW, "x" * 44], [7], NEW])
def test_a_wrong_key_is_found_by_the_checks_and_not_quoted(settings, keys):
    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "ENCRYPTION_KEYS": keys}

    found = [message for message in run_checks() if message.id == "queueadmin.E001"]

    assert len(found) == 1
    assert "ENCRYPTION_KEYS" in found[0].msg
    assert not any(str(key) in found[0].msg for key in keys if len(str(key)) > 1)


def test_sensitive_actors_without_a_key_are_pointed_out_before_deployment(text_to, use_keys):
    def warnings():
        checks = run_checks(include_deployment_checks=True)
        return [message for message in checks if message.id == "queueadmin.W001"]

    assert warnings() == []
    use_keys()
    assert "text_to" in warnings()[0].msg


# --- Shown ------------------------------------------------------------------------------
@pytest.mark.parametrize("keys", [[], [OLD]], ids=["plain", "encrypted"])
def test_masked_fields_are_revealed_by_an_act_that_is_kept(broker, text_to, use_keys, client, keys):
    use_keys(*keys)
    text_to.send(12, PHONE)
    run_jobs()
    job = Job.objects.get()
    page = reverse("admin:queueadmin_job_change", args=[job.pk])
    reveal = reverse("admin:queueadmin_job_reveal", args=[job.pk])
    client.force_login(make_user("viewer", "view_job"))

    html = client.get(page).content.decode()
    assert MASK in html
    assert "12" in html
    assert "5550123" not in html
    assert reveal not in html
    assert client.post(reveal).status_code == 403
    assert not AuditEntry.objects.exists()

    client.force_login(make_user("anna", "view_job", "reveal_payload"))
    assert reveal in client.get(page).content.decode()
    assert client.get(reveal).status_code == 405
    revealed = client.post(reveal)
    assert PHONE in revealed.content.decode().replace("&#x27;", "'")
    assert "no-store" in revealed["Cache-Control"]
    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.target_id, entry.user_name) == ("reveal", job.pk, "anna")
    assert "5550123" not in client.get(page).content.decode()


def test_a_payload_without_its_key_says_so_and_breaks_no_page(broker, text_to, use_keys, client):
    text_to.send(12, PHONE)
    use_keys()
    client.force_login(make_user("anna", "view_job", "reveal_payload"))

    response = client.get(reverse("admin:queueadmin_job_change", args=[Job.objects.get().pk]))

    assert response.status_code == 200
    assert "not among QUEUEADMIN" in response.content.decode()


def test_a_job_is_masked_also_where_its_actor_is_not_known(broker, text_to):
    text_to.send(12, PHONE)
    del broker.actors["text_to"]

    assert payloads.masked(Job.objects.get().payload)["args"] == [12, MASK]


def test_what_is_declared_is_masked_by_position_by_name_and_inside(broker):
    @dramatiq.actor(queue_name="q", broker=broker, sensitive=["phone", "Address"])
    def ship(order, *phone, password=None, **extra): ...

    ship.send({"id": 1, "address": {"city": "x"}}, "1", "2", password="p", phone="3")

    shown = payloads.masked(Job.objects.get().payload)
    assert shown["args"] == [{"id": 1, "address": MASK}, MASK, MASK]
    assert shown["kwargs"] == {"password": MASK, "phone": MASK}


def test_a_message_may_declare_more_than_its_actor(broker, use_keys):
    @dramatiq.actor(queue_name="q", broker=broker)
    def note(text): ...

    note.send_with_options(args=("from the doctor",), sensitive=["*"])

    job = Job.objects.get()
    assert job.is_sealed
    assert payloads.masked(job.payload)["args"] == [MASK]


def test_error_texts_stacks_and_logs_do_not_repeat_the_masked_value(
    broker, refuse, use_keys, caplog
):
    caplog.set_level(logging.DEBUG)
    caplog.handler.addFilter(events.REDACTION)
    message = refuse.send(PHONE)
    with caplog.at_level(logging.DEBUG):
        run_jobs()

    with pytest.raises(ResultFailure, match=f"{MASK}' is not on WhatsApp"):
        message.get_result()
    letter = DeadLetter.objects.get()
    assert MASK in letter.traceback
    assert "5550123" not in everything_stored(broker)
    assert "Failed to process message" in caplog.text
    formatter = logging.Formatter("%(message)s")
    assert "5550123" not in "\n".join(map(formatter.format, caplog.records))


def test_dramatiqs_own_lines_say_which_message_and_not_what_is_in_it(broker, start_worker, caplog):
    @dramatiq.actor(queue_name="q", broker=broker, max_retries=0)
    def fail(name):
        raise ValueError("no")

    with caplog.at_level(logging.DEBUG, logger="dramatiq.worker"):
        message = fail.send("anna")
        start_worker()
        wait_until(DeadLetter.objects.exists)

    lines = [record.getMessage() for record in caplog.records if "message" in record.getMessage()]
    assert any(message.message_id in line for line in lines)
    assert not any("anna" in line for line in lines)


def test_a_token_that_nobody_can_have_written_is_a_dead_letter_and_the_others_run(
    broker, text_to, use_keys, start_worker, seen
):
    use_keys(OLD)
    message = text_to.send(12, PHONE)
    text_to.send(13, PHONE)
    written = bytes(Job.objects.get(pk=message.message_id).message)
    strange = written.replace(b".gAAAA", ".éAAAA".encode())
    assert strange != written
    queue = f"test:{message.queue_name}.msgs"
    broker.transport._client.hset(queue, f"{message.message_id}:1", strange)
    start_worker()

    wait_until(lambda: seen == [(13, PHONE)])
    wait_until(DeadLetter.objects.exists)
    assert DeadLetter.objects.get().died_by == DeathCause.UNDECODABLE
