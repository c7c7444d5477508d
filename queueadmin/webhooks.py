"""A signed POST to an address of the settings, and to nowhere inside our network.

The name is resolved once; every address behind it must be public or in a network that the
settings allow, and the connection goes to one of those very addresses. Redirects are not
followed and proxies of the environment not used; of the answer only the status is read.
"""

import hmac
import socket
import ssl
import threading
from http.client import HTTPConnection, HTTPException
from urllib.parse import SplitResult, urlsplit

from . import addresses, conf
from .conf import settings
from .exceptions import PermanentError, QueueadminError

SIGNATURE, TIMESTAMP, DELIVERY = (
    "X-Queueadmin-Signature",
    "X-Queueadmin-Timestamp",
    "X-Queueadmin-Delivery",
)
_CONNECT_SECONDS = 5.0
#: For the whole call, however slowly the other side talks.
_CALL_SECONDS = 15.0


class WebhookRefused(PermanentError):
    """An address that is not called: it is none, or leads into a private network."""


class WebhookFailed(QueueadminError):
    """The other side is away or did not say that all is well; a later attempt may succeed."""


def sign(body: bytes, *, timestamp: int, secret: str) -> str:
    """Return the signature of a body: HMAC-SHA256 of the time, a dot and the body."""
    text = f"{timestamp}.".encode() + body
    return "sha256=" + hmac.new(secret.encode(), text, "sha256").hexdigest()


def post(url: str, body: bytes, *, timestamp: int, delivery: str) -> None:
    """Send a JSON body; return once the other side answered with a status of 200 to 299.

    Args:
        url: an address of the settings.
        body: what is sent and signed.
        timestamp: seconds since 1970, signed with the body, so that an old one can be told.
        delivery: the same for each attempt, so that the other side can tell a repeat.

    Raises:
        WebhookRefused: the address must not be called.
        WebhookFailed: anything else that went wrong.
    """
    if not conf.is_url(url):
        raise WebhookRefused(f"{url!r:.200} is no address of a webhook.")
    parts = urlsplit(url)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "queueadmin",
        TIMESTAMP: str(timestamp),
        SIGNATURE: sign(body, timestamp=timestamp, secret=settings.ALERT_WEBHOOK_SECRET),
        DELIVERY: delivery,
    }
    connection = _Pinned(parts)
    overdue = threading.Timer(_CALL_SECONDS, connection.abort)
    overdue.daemon = True
    overdue.start()
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, headers)
        status = connection.getresponse().status
    except (OSError, HTTPException, ValueError) as error:
        raise WebhookFailed(f"{parts.hostname} cannot be reached: {error}") from error
    finally:
        overdue.cancel()
        connection.close()
    if not 200 <= status < 300:
        raise WebhookFailed(f"{parts.hostname} answered {status}.")


class _Pinned(HTTPConnection):
    """A connection to an address that was checked; certificates are checked for the name."""

    def __init__(self, parts: SplitResult) -> None:
        self._is_secure = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if self._is_secure else 80)
        self._checked = _checked_addresses(host, port)
        self.default_port = 443 if self._is_secure else 80
        super().__init__(host, port, timeout=_CONNECT_SECONDS)

    def connect(self) -> None:
        """Connect to an address that was checked, whatever the name means by now.

        Raises:
            OSError: none of them can be reached.
        """
        self.sock = self._reach()
        if self._is_secure:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)

    def _reach(self) -> socket.socket:
        *others, last = self._checked
        for address in others:
            try:
                return socket.create_connection((address, self.port), self.timeout)
            except OSError:
                continue  # as where this host has no IPv6
        return socket.create_connection((last, self.port), self.timeout)

    def abort(self) -> None:
        """End the call from another thread."""
        if self.sock is not None:
            try:
                self.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it has ended by itself


def _checked_addresses(host: str, port: int) -> list[str]:
    try:
        found = addresses.resolve(host, port)
    except (OSError, UnicodeError) as error:
        raise WebhookFailed(f"{host} cannot be found: {error}") from error
    for address in found:
        if not addresses.is_public(address) and not addresses.is_in(
            address, settings.ALERT_WEBHOOK_NETWORKS
        ):
            raise WebhookRefused(
                f"{host} leads to {address}, which is not public; allow its network with "
                "ALERT_WEBHOOK_NETWORKS if that is meant."
            )
    if not found:
        raise WebhookFailed(f"{host} has no address.")
    return found
