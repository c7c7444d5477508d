"""E-mail goes by SendGrid, and by SMTP where SendGrid is out of order."""

import smtplib

import pytest
from pytest_django import Settings

from notifications.channels import email
from notifications.exceptions import (
    ConfigurationDeliveryError,
    OutcomeUnknown,
    ProviderUnavailable,
    RecipientRejected,
    RetryLater,
)
from notifications.rendering import Email
from notifications.sandbox import Sandbox

TO = "shop@example.com"
LETTER = Email(subject="Hello", text="Café & more", html="<p>Café &amp; more</p>")


def send(to: str = TO) -> email.Receipt:
    return email.send(LETTER, to=to, reference="ref")


def test_sendgrid_takes_the_message(sandbox: Sandbox) -> None:
    receipt = send()

    (message,) = sandbox.messages
    assert (receipt.provider, receipt.message_id) == ("sendgrid", message.id)
    assert (message.subject, message.text, message.reference) == ("Hello", "Café & more", "ref")


def test_an_outage_of_sendgrid_delivers_once_by_smtp(sandbox: Sandbox) -> None:
    sandbox.fail("email")

    receipt = send()

    (message,) = sandbox.messages
    assert (receipt.provider, message.provider) == ("smtp", "smtp")
    assert receipt.message_id == message.id
    assert message.text.strip() == "Café & more"


def test_refused_credentials_fail_over_and_are_logged_as_an_error(
    sandbox: Sandbox, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.SENDGRID_API_KEY = " "
    settings.SENDGRID_API_URL = f"{sandbox.url}/sendgrid"

    assert send().provider == "smtp"

    assert [record.levelname for record in caplog.records if record.name == email.__name__] == [
        "ERROR"
    ]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("bad_recipient", RecipientRejected),
        ("throttled", RetryLater),
        ("lost_answer", OutcomeUnknown),
        ("lost_request", OutcomeUnknown),
    ],
)
def test_what_smtp_cannot_mend_or_might_double_does_not_fail_over(
    sandbox: Sandbox, fault: str, error: type[Exception]
) -> None:
    sandbox.fail("email", fault=fault)

    with pytest.raises(error):
        send()

    assert not [message for message in sandbox.messages if message.provider == "smtp"]


def test_an_outage_of_both_names_both(sandbox: Sandbox) -> None:
    sandbox.fail("email")
    sandbox.fail("smtp")

    with pytest.raises(ProviderUnavailable, match=r"SendGrid.*SMTP.*451"):
        send()


def test_a_mailbox_that_smtp_refuses_is_permanent(sandbox: Sandbox) -> None:
    sandbox.fail("email")
    sandbox.fail("smtp", fault="bad_recipient")

    with pytest.raises(RecipientRejected, match="550") as raised:
        send()

    assert raised.value.details == "5.1.1 No such mailbox"


@pytest.mark.parametrize(("fault", "arrived"), [("lost_answer", 1), ("lost_request", 0)])
def test_smtp_that_breaks_off_at_the_message_is_unknown(
    sandbox: Sandbox, fault: str, arrived: int
) -> None:
    sandbox.fail("email")
    sandbox.fail("smtp", fault=fault)

    with pytest.raises(OutcomeUnknown):
        send()

    assert len(sandbox.messages) == arrived


def test_an_smtp_server_that_is_down_is_an_outage(sandbox: Sandbox, settings: Settings) -> None:
    sandbox.fail("email")
    settings.EMAIL_PORT = 9

    with pytest.raises(ProviderUnavailable, match="cannot be reached"):
        send()


@pytest.mark.parametrize(
    ("sendgrid_key", "error"),
    [("", ProviderUnavailable), (" ", ConfigurationDeliveryError)],
    ids=["outage of SendGrid", "refused by SendGrid too"],
)
def test_an_account_that_smtp_refuses_ends_a_message_only_where_sendgrid_refuses_it_too(
    sandbox: Sandbox,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    sendgrid_key: str,
    error: type[Exception],
) -> None:
    def refuse(self: smtplib.SMTP, user: str, password: str) -> None:
        raise smtplib.SMTPAuthenticationError(535, b"5.7.8 Wrong password")

    monkeypatch.setattr(smtplib.SMTP, "login", refuse)
    settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = "orders", "old"
    settings.SENDGRID_API_KEY = sendgrid_key
    settings.SENDGRID_API_URL = f"{sandbox.url}/sendgrid"
    sandbox.fail("email")

    with pytest.raises(error, match="Wrong password") as raised:
        send()

    assert type(raised.value) is error
    assert "The SMTP server refuses our account" in caplog.text
