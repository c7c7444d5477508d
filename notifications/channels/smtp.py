"""SMTP by Django's e-mail backend, told apart by how far the conversation came."""

import smtplib
from contextlib import suppress
from email.utils import make_msgid, parseaddr
from typing import Any

from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection

from ..exceptions import (
    ConfigurationDeliveryError,
    DeliveryError,
    MessageRejected,
    OutcomeUnknown,
    ProviderUnavailable,
    RecipientRejected,
)
from ..rendering import Email
from .base import Receipt, text, unsubscribe_headers

PROVIDER = "smtp"
#: Replies from here on are final; 4xx asks to come again.
PERMANENT_REPLY = 500


def send(message: Email, *, to: str) -> Receipt:
    """Send an e-mail; the receipt carries its Message-ID.

    Raises:
        DeliveryError: the subclass says whether and when to try again.
    """
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2] or "localhost"
    message_id = make_msgid(domain=domain)
    connection = get_connection(fail_silently=False)
    outgoing = EmailMultiAlternatives(
        message.subject,
        message.text,
        to=[to],
        headers={"Message-ID": message_id, **unsubscribe_headers(message)},
        connection=connection,
        alternatives=[(message.html, "text/html")],
    )
    for file in message.attachments:
        outgoing.attach(file.name, file.content, file.kind)
    try:
        _open(connection)
        _send(outgoing)
    finally:
        # The message is accepted or refused by now; a failing farewell changes nothing.
        with suppress(OSError, smtplib.SMTPException):
            connection.close()
    return Receipt.of(PROVIDER, message_id)


def _open(connection: Any) -> None:
    try:
        connection.open()
    except smtplib.SMTPAuthenticationError as error:
        raise ConfigurationDeliveryError(
            f"The SMTP server refuses our account: {_reply(error)}",
            provider=PROVIDER,
            code=str(error.smtp_code),
        ) from error
    except (OSError, smtplib.SMTPException) as error:
        raise ProviderUnavailable(
            f"The SMTP server cannot be reached: {error}", provider=PROVIDER, code="unreachable"
        ) from error


def _send(outgoing: EmailMultiAlternatives) -> None:
    try:
        outgoing.send()
    except smtplib.SMTPRecipientsRefused as error:
        code, reply = next(iter(error.recipients.values()))
        raise _refused(RecipientRejected, code, _words(reply)) from error
    except smtplib.SMTPResponseException as error:
        raise _refused(MessageRejected, error.smtp_code, _reply(error)) from error
    except (OSError, smtplib.SMTPException) as error:
        raise OutcomeUnknown(
            f"The SMTP server broke off ({type(error).__name__}); "
            "the message may have been delivered.",
            provider=PROVIDER,
            code="no_answer",
        ) from error


def _refused(permanent: type[DeliveryError], code: int, reply: str) -> DeliveryError:
    kind = permanent if code >= PERMANENT_REPLY else ProviderUnavailable
    return kind(
        f"The SMTP server refused the message: {code} {reply}",
        provider=PROVIDER,
        code=str(code),
        details=reply,
    )


def _reply(error: smtplib.SMTPResponseException) -> str:
    return _words(error.smtp_error)


def _words(reply: bytes | str) -> str:
    return text(reply.decode(errors="replace") if isinstance(reply, bytes) else reply)
