"""The sandbox behaves like the providers, and its page is safe to look at."""

import json
from pathlib import Path

import httpx2
import pytest

from notifications.channels import sms
from notifications.exceptions import MessageRejected, ProviderUnavailable, RetryLater
from notifications.rendering import Sms
from notifications.sandbox import Sandbox

TO = "+447700900123"


def send(text: str = "Hello", to: str = TO) -> None:
    sms.send(Sms(text), to=to, reference="ref")


def test_the_page_escapes_what_came_from_outside_and_runs_no_script(sandbox: Sandbox) -> None:
    send("<script>alert(1)</script>")

    page = httpx2.get(f"{sandbox.url}/")

    assert "<script>" not in page.text
    assert "&lt;script&gt;alert(1)" in page.text
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_the_page_shows_the_newest_first_and_one_channel_on_request(sandbox: Sandbox) -> None:
    send("first")
    send("second")

    everything = httpx2.get(f"{sandbox.url}/").text
    emails = httpx2.get(f"{sandbox.url}/", params={"channel": "email"}).text

    assert everything.index("second") < everything.index("first")
    assert "No message yet" in emails


def test_the_inbox_is_also_json(sandbox: Sandbox) -> None:
    send("Hello")

    (message,) = httpx2.get(f"{sandbox.url}/inbox.json").json()["messages"]

    assert (message["channel"], message["recipient"], message["text"]) == ("sms", TO, "Hello")


def test_a_throttled_number_is_refused_twice_and_then_served(sandbox: Sandbox) -> None:
    for _call in range(2):
        with pytest.raises(RetryLater):
            send(to="+447700900429")
    send(to="+447700900429")

    assert len(sandbox.messages) == 1


def test_faults_are_ordered_and_lifted_over_http(sandbox: Sandbox) -> None:
    order = {"channel": "sms", "recipient": None, "fault": "outage"}
    assert httpx2.post(f"{sandbox.url}/faults", json=order).is_success
    with pytest.raises(ProviderUnavailable):
        send()

    assert httpx2.post(f"{sandbox.url}/faults", json={**order, "fault": None}).is_success

    send()
    assert len(sandbox.messages) == 1


@pytest.mark.parametrize(
    "body", ["", "[]", "{", '{"fault": "earthquake"}', '{"fault": 1}', '{"times": 0}']
)
def test_orders_that_make_no_sense_are_refused(sandbox: Sandbox, body: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = httpx2.post(f"{sandbox.url}/faults", content=body, headers=headers)

    assert answer.status_code == 400
    assert answer.json()["error"]


def test_a_form_of_another_site_cannot_order_faults(sandbox: Sandbox) -> None:
    answer = httpx2.post(
        f"{sandbox.url}/faults",
        content='{"fault": "outage"}',
        headers={"Content-Type": "text/plain"},
    )

    assert answer.status_code == 400
    assert sandbox.faults.orders() == []


def test_a_request_without_token_is_refused_by_every_provider(sandbox: Sandbox) -> None:
    for path in ("whatsapp/v23.0/1/messages", "sendgrid/v3/mail/send", "sms/messages"):
        assert httpx2.post(f"{sandbox.url}/{path}", json={}).status_code == 401


def test_a_message_without_text_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(MessageRejected, match="text must be"):
        send("")


def test_the_journal_survives_a_restart_and_a_line_cut_short(tmp_path: Path) -> None:
    journal = tmp_path / "sandbox.jsonl"
    with Sandbox(journal=journal) as first:
        first.mailbox.add(message_id="1", channel="sms", provider="sms", recipient=TO, text="kept")
    with journal.open("a") as lines:
        lines.write('{"id": "2", "chan')

    with Sandbox(journal=journal) as second:
        texts = [message.text for message in second.messages]

    assert texts == ["kept"]
    assert json.loads(journal.read_text().splitlines()[0])["recipient"] == TO
