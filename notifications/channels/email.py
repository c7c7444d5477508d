"""E-mail: SendGrid first, SMTP where SendGrid is out of order.

What fails over: SendGrid unreachable, 5xx, or our account refused (that one is logged as
an error too, for somebody must mend it). What does not: a pause SendGrid asks for is
kept; a message or recipient it rejects would be rejected by SMTP as well; and after an
unknown outcome a second way could deliver the message twice. Where SMTP refuses our account
during an outage of SendGrid, the message is tried again: the outage ends by itself.
"""

import logging

from ..exceptions import ConfigurationDeliveryError, ProviderUnavailable
from ..rendering import Email
from . import sendgrid, smtp
from .base import Receipt

logger = logging.getLogger(__name__)


def send(message: Email, *, to: str, reference: str) -> Receipt:
    """Send an e-mail by the first provider that works.

    Args:
        message: subject, text and HTML.
        to: the recipient's address.
        reference: comes back in the provider's receipts.

    Raises:
        DeliveryError: the subclass says whether and when to try again.
    """
    try:
        return sendgrid.send(message, to=to, reference=reference)
    except ConfigurationDeliveryError as error:
        logger.exception("SendGrid refuses our account; sending by SMTP reference=%s", reference)
        first = str(error)
        is_outage = False
    except ProviderUnavailable as error:
        logger.warning("SendGrid is out of order; sending by SMTP reference=%s", reference)
        first = str(error)
        is_outage = True
    try:
        return smtp.send(message, to=to)
    except (ProviderUnavailable, ConfigurationDeliveryError) as error:
        if isinstance(error, ConfigurationDeliveryError):
            logger.exception("The SMTP server refuses our account reference=%s", reference)
            if not is_outage:
                raise
        raise ProviderUnavailable(
            f"{first} Then by SMTP: {error}", provider=error.provider, code=error.code
        ) from error
