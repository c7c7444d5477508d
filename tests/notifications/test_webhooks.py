"""Providers report back: signed, repeated, in any order, and sometimes before we are done."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from django.db import OperationalError
from django.test import Client
from pytest_django import Settings

from notifications import delivery as deliveries
from notifications import signatures
from notifications.actors import answer_incoming
from notifications.channels import base, whatsapp
from notifications.exceptions import OutcomeUnknown, RecipientRejected, TransientDeliveryError
from notifications.models import (
    Channel,
    Delivery,
    DeliveryState,
    Incoming,
    OptOut,
    Receipt,
    ReceiptStatus,
)
from notifications.sandbox import Sandbox
from orders.models import Order
from queueadmin.models import Job
from queueadmin.testing import run_jobs
from tests.business import PHONE, plan

pytestmark = pytest.mark.django_db

ROOT = "/messages/webhooks"
Answer = Any


def status(delivery: Delivery, word: str = "delivered", at: int = 1, **more: object) -> object:
    facts = {
        "id": "wamid.1",
        "status": word,
        "timestamp": str(1_767_000_000 + at),
        "biz_opaque_callback_data": str(delivery.reference),
        **more,
    }
    return whatsapp_body(statuses=[facts])


def whatsapp_body(**value: object) -> object:
    return {"entry": [{"changes": [{"field": "messages", "value": value}]}]}


def call_whatsapp(data: object, *, signature: str | None = None) -> Answer:
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    if signature is None:
        digest = hmac.new(signatures.whatsapp_secret(), body, hashlib.sha256).hexdigest()
        signature = f"sha256={digest}"
    return Client(enforce_csrf_checks=True).post(
        f"{ROOT}/whatsapp/",
        body,
        content_type="application/json",
        headers={"X-Hub-Signature-256": signature},
    )


def call_sms(data: object, *, age: int = 0) -> Answer:
    body, timestamp = json.dumps(data).encode(), str(int(time.time()) - age)
    signed = timestamp.encode() + b"." + body
    digest = hmac.new(signatures.sms_secret(), signed, hashlib.sha256).hexdigest()
    headers = {"X-Signature": f"sha256={digest}", "X-Timestamp": timestamp}
    return Client().post(f"{ROOT}/sms/", body, content_type="application/json", headers=headers)


def call_sendgrid(
    data: object, *, age: int = 0, key: ec.EllipticCurvePrivateKey | None = None
) -> Answer:
    body, timestamp = json.dumps(data).encode(), str(int(time.time()) - age)
    key = key or signatures.sandbox_sendgrid_key()
    signature = key.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    headers = {
        "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
        "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
    }
    return Client().post(
        f"{ROOT}/sendgrid/", body, content_type="application/json", headers=headers
    )


def sent(order: Order, channel: Channel = Channel.WHATSAPP) -> Delivery:
    delivery = plan(order, channel)
    deliveries.send(delivery.pk)
    return delivery


def receipt(delivery: Delivery) -> str:
    delivery.refresh_from_db()
    return delivery.receipt


def test_receipts_are_shown_on_the_delivery(sandbox: Sandbox, order: Order) -> None:
    by_whatsapp, by_sms = sent(order), sent(order, Channel.SMS)
    by_email = sent(order, Channel.EMAIL)

    answers = [
        call_whatsapp(status(by_whatsapp, "read")),
        call_sms(
            {"id": "1", "reference": str(by_sms.reference), "status": "delivered", "at": 1767000000}
        ),
        call_sendgrid(
            [
                {
                    "event": "bounce",
                    "reference": str(by_email.reference),
                    "timestamp": 1767000000,
                    "reason": "550 no such user",
                }
            ]
        ),
    ]

    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"taken": 1})] * 3
    assert (receipt(by_whatsapp), receipt(by_sms), receipt(by_email)) == (
        "read",
        "delivered",
        "failed",
    )
    assert Receipt.objects.get(delivery=by_email).said == "bounce 550 no such user"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["sent", "delivered", "read"], "read"),
        (["read", "delivered", "sent"], "read"),
        (["delivered", "sent"], "delivered"),
        (["failed", "sent"], "failed"),
        (["delivered", "failed"], "delivered"),
    ],
)
def test_receipts_in_any_order_show_what_says_most(
    sandbox: Sandbox, order: Order, words: list[str], shown: str
) -> None:
    delivery = sent(order)

    for at, word in enumerate(words):
        call_whatsapp(status(delivery, word, at))

    assert receipt(delivery) == shown
    assert delivery.receipts.count() == len(words)


def test_a_repeated_call_is_answered_well_and_changes_nothing(
    sandbox: Sandbox, order: Order
) -> None:
    delivery = sent(order)

    taken = [call_whatsapp(status(delivery)).json()["taken"] for _call in range(3)]

    assert taken == [1, 0, 0]
    assert delivery.receipts.count() == 1


def test_a_receipt_may_come_before_the_sends_own_record(
    sandbox: Sandbox, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = plan(order)
    really_send = whatsapp.send

    def send_and_hear_at_once(*args: Any, **kwargs: Any) -> base.Receipt:
        taken = really_send(*args, **kwargs)
        assert call_whatsapp(status(delivery, id=taken.message_id)).json() == {"taken": 1}
        return taken

    monkeypatch.setattr(whatsapp, "send", send_and_hear_at_once)
    deliveries.send(delivery.pk)

    assert receipt(delivery) == "delivered"
    assert delivery.state == DeliveryState.SENT
    assert delivery.provider_message_id == sandbox.messages[0].id


@pytest.mark.parametrize("error", [OutcomeUnknown, TransientDeliveryError, RuntimeError])
def test_a_receipt_that_came_during_a_call_that_failed_for_us_settles_it(
    sandbox: Sandbox, order: Order, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    delivery = plan(order)
    really_send = whatsapp.send

    def send_and_lose_the_answer(*args: Any, **kwargs: Any) -> base.Receipt:
        taken = really_send(*args, **kwargs)
        assert call_whatsapp(status(delivery, id=taken.message_id)).json() == {"taken": 1}
        raise error("no answer")

    monkeypatch.setattr(whatsapp, "send", send_and_lose_the_answer)

    assert deliveries.send(delivery.pk) is None
    assert receipt(delivery) == "delivered"
    assert (delivery.state, delivery.error_code) == (DeliveryState.SENT, "")
    assert delivery.sent_at == delivery.receipt_at


@pytest.mark.parametrize(
    "state",
    [
        DeliveryState.SENDING,
        DeliveryState.UNKNOWN,
        DeliveryState.FAILED,
        DeliveryState.PENDING,  # somebody allowed to resend it a moment too early
    ],
)
def test_a_receipt_proves_that_a_message_was_sent_and_it_is_not_sent_again(
    sandbox: Sandbox, order: Order, state: DeliveryState
) -> None:
    delivery = plan(order)
    Delivery.objects.filter(pk=delivery.pk).update(
        state=state, claim="5e0b8b5e-6c43-4a35-9d1c-6a0a1f0e7d11"
    )

    call_whatsapp(status(delivery))
    deliveries.send(delivery.pk)

    assert receipt(delivery) == "delivered"
    assert delivery.state == DeliveryState.SENT
    assert not sandbox.messages


@pytest.mark.parametrize("signature", ["", "sha256=", "sha256=" + "0" * 64, "ÿ", "md5=1"])
def test_a_call_with_a_wrong_signature_is_refused_and_leaves_nothing(
    sandbox: Sandbox, order: Order, signature: str
) -> None:
    delivery = sent(order)

    answer = call_whatsapp(status(delivery), signature=signature)

    assert answer.status_code == 403
    assert receipt(delivery) == ""
    assert not Receipt.objects.exists()


def test_a_replay_of_an_old_call_is_refused(sandbox: Sandbox, order: Order) -> None:
    delivery = sent(order, Channel.SMS)
    report = {"reference": str(delivery.reference), "status": "failed", "at": 1767000000}

    assert call_sms(report, age=16 * 60).status_code == 403
    assert call_sendgrid([], age=16 * 60).status_code == 403
    assert not Receipt.objects.exists()


def test_sendgrid_is_believed_by_its_own_key_only(order: Order) -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())

    assert call_sendgrid([], key=stranger).status_code == 403


def test_with_real_credentials_and_no_secret_nobody_is_believed(
    settings: Settings, order: Order
) -> None:
    settings.WHATSAPP_TOKEN = settings.SMS_API_KEY = settings.SENDGRID_API_KEY = "real"

    assert call_whatsapp({"entry": []}).status_code == 403
    assert call_sms({}).status_code == 403
    assert call_sendgrid([]).status_code == 403


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"1", b'{"entry": 1}', b"\xff\xfe", b"[" * 100_000],
    ids=["empty", "cut", "list", "number", "shape", "bytes", "deep"],
)
def test_what_is_no_webhook_is_refused(body: bytes) -> None:
    assert call_whatsapp(body).status_code == 400


def test_a_call_that_is_too_large_is_refused_unread() -> None:
    assert call_whatsapp(b"x" * 1_000_001).status_code == 413


@pytest.mark.parametrize(
    "part",
    [
        {},
        {"id": "1", "status": "dancing", "timestamp": "1"},
        {"id": "1", "status": "read", "timestamp": "99999999999999999"},
        {"id": "1", "status": "read", "timestamp": "1", "biz_opaque_callback_data": "nobody's"},
        {"id": ["1"], "status": ["read"], "timestamp": {}},
        {"id": "\0\ud800", "status": "read", "timestamp": "1"},
        {"id": "1", "status": "read", "timestamp": "1", "biz_opaque_callback_data": "\0"},
    ],
)
def test_a_part_that_is_not_understood_does_not_stop_the_others(
    sandbox: Sandbox, order: Order, part: dict[str, object]
) -> None:
    delivery = sent(order)
    good = {
        "id": "wamid.1",
        "status": "read",
        "timestamp": "1767000000",
        "biz_opaque_callback_data": str(delivery.reference),
    }

    answer = call_whatsapp(whatsapp_body(statuses=[part, good]))

    assert (answer.status_code, answer.json()) == (200, {"taken": 1})


def test_meta_is_answered_who_we_are(client: Client, settings: Settings) -> None:
    settings.WHATSAPP_VERIFY_TOKEN = "word"
    ask = {"hub.mode": "subscribe", "hub.challenge": "<b>42</b>"}

    good = client.get(f"{ROOT}/whatsapp/", {**ask, "hub.verify_token": "word"})
    bad = client.get(f"{ROOT}/whatsapp/", {**ask, "hub.verify_token": "other"})

    assert (good.status_code, good.content) == (200, b"<b>42</b>")
    assert good.headers["Content-Type"] == "text/plain"
    assert bad.status_code == 403


def message(text: str, sender: str = PHONE.lstrip("+"), number: str = "wamid.9") -> object:
    facts = {"id": number, "from": sender, "timestamp": "1767000000", "text": {"body": text}}
    return whatsapp_body(messages=[facts])


def test_a_message_that_comes_twice_is_one(order: Order) -> None:
    for _call in range(2):
        call_whatsapp(message("hello \x00 there"))

    assert Incoming.objects.get().text == "hello  there"
    assert Job.objects.filter(actor="answer_incoming").count() == 1


def test_an_id_that_no_database_keeps_is_cleaned(order: Order) -> None:
    answer = call_whatsapp(message("hello", number="wamid.\0\ud800"))

    assert answer.status_code == 200
    assert Incoming.objects.get().provider_message_id == "wamid.?"


@pytest.mark.django_db(transaction=True)
def test_a_message_whose_answer_could_not_be_enqueued_is_taken_when_it_comes_again(
    order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*args: object) -> None:
        raise OperationalError("the connection is lost")

    with monkeypatch.context() as broken, pytest.raises(OperationalError):
        broken.setattr(answer_incoming, "send", break_off)
        call_whatsapp(message("balance"))
    call_whatsapp(message("balance"))

    assert Incoming.objects.count() == 1
    assert Job.objects.filter(actor="answer_incoming").count() == 1


def test_stop_stops_whatsapp_and_start_starts_it_again(sandbox: Sandbox, order: Order) -> None:
    call_whatsapp(message("STOP"))
    run_jobs()
    quiet = plan(order)
    deliveries.send(quiet.pk)
    quiet.refresh_from_db()
    assert quiet.state == DeliveryState.SUPPRESSED
    assert PHONE not in {sent.recipient for sent in sandbox.messages if sent.channel == "whatsapp"}

    call_whatsapp(message("start", number="wamid.10"))
    run_jobs()

    assert not OptOut.objects.exists()


def test_a_spam_report_stops_further_mail(sandbox: Sandbox, order: Order) -> None:
    delivery = sent(order, Channel.EMAIL)

    call_sendgrid(
        [{"event": "spamreport", "reference": str(delivery.reference), "timestamp": 1767000000}]
    )

    assert OptOut.objects.get().address == order.retailer.email


def test_the_link_in_a_mail_stops_mail_after_its_button_is_pressed(
    sandbox: Sandbox, order: Order, client: Client
) -> None:
    sent(order, Channel.EMAIL)
    link = sandbox.messages[0].text.split()[-1].removeprefix("http://127.0.0.1:8000")

    assert "gets no more" not in client.get(link).content.decode()
    assert not OptOut.objects.exists()
    page = client.post(link, {"List-Unsubscribe": "One-Click"})

    assert "gets no more" in page.content.decode()
    assert OptOut.objects.get().channel == Channel.EMAIL
    assert client.post(link[:-2] + "x/").status_code == 404


def test_each_status_has_a_rank_of_its_own() -> None:
    assert len({status.rank for status in ReceiptStatus}) == len(ReceiptStatus)


def test_a_provider_that_says_the_recipient_opted_out_is_remembered(
    sandbox: Sandbox, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> base.Receipt:
        raise RecipientRejected("opted out", provider="whatsapp", code="131050")

    monkeypatch.setattr(whatsapp, "send", refuse)
    delivery = plan(order)

    with pytest.raises(RecipientRejected):
        deliveries.send(delivery.pk)

    assert OptOut.objects.get().address == PHONE
