"""A connection to an AMQP server that is opened when it is needed, and again after it broke."""

import os
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import amqp
from amqp.method_framing import frame_handler

from ..exceptions import ConfigurationError
from .transport import BrokerUnavailable

# A server that has just not answered is not asked again for so long: many threads wait for
# one connection, and each of them would wait for its time-out.
_PAUSE_SECONDS = 0.5
# Connections of a parent process. Closing them here would close them there too.
_inherited: list[object] = []


def options_of(url: str) -> dict[str, Any]:
    """Return what `amqp.Connection` needs for an address.

    Args:
        url: amqp:// or amqps://, with user, password, host, port and virtual host, and
            after "?" any of `cacertfile`, `certfile`, `keyfile` (paths) and
            `connection_timeout` (milliseconds), as RabbitMQ names them.

    Raises:
        ConfigurationError: the address cannot be understood; the password is not quoted.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("amqp", "amqps"):
        raise ConfigurationError(
            f"RABBITMQ_URL begins with {parts.scheme!r}; it must be amqp://user:password@host:5672/"
            "vhost, or amqps:// with port 5671 for TLS."
        )
    try:
        port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
    except ValueError as error:
        raise ConfigurationError(f"RABBITMQ_URL has a wrong port: {error}.") from error
    query = dict(parse_qsl(parts.query))
    known = {"cacertfile", "certfile", "keyfile", "connection_timeout"}
    if unknown := sorted(query.keys() - known):
        raise ConfigurationError(
            f"RABBITMQ_URL has the unknown option {', '.join(unknown)}; "
            f"known: {', '.join(sorted(known))}."
        )
    timeout = query.get("connection_timeout", "")
    if timeout and not (timeout.isdecimal() and 0 < int(timeout) < 100_000):
        raise ConfigurationError(
            f"connection_timeout in RABBITMQ_URL is {timeout!r}; it must be milliseconds, 1 to 99999."
        )
    host = parts.hostname or "127.0.0.1"
    # An address without a path means the default virtual host, "/" one without a name.
    vhost = unquote(parts.path[1:]) or "/"
    found: dict[str, Any] = {
        "host": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        "userid": unquote(parts.username or "guest"),
        "password": unquote(parts.password or "guest"),
        "virtual_host": vhost,
    }
    if timeout:
        found["connect_timeout"] = int(timeout) / 1000
    if parts.scheme == "amqps":
        found["ssl"] = {
            "cert_reqs": ssl.CERT_REQUIRED,
            "server_hostname": host,
            "ca_certs": query.get("cacertfile"),
            "certfile": query.get("certfile"),
            "keyfile": query.get("keyfile"),
        }
    return found


class Line:
    """One connection with one channel.

    Not for several threads at a time: whoever shares it serialises its use.

    Args:
        options: of `amqp.Connection`, see `options_of`.
        timeout: seconds that the server may take for one answer.
        prepare: called with each new channel.
    """

    def __init__(
        self, options: dict[str, Any], *, timeout: float, prepare: Callable[[Any], None]
    ) -> None:
        self._options = options
        self._timeout = timeout
        self._prepare = prepare
        self._connection: Any = None
        self._channel: Any = None
        self._pid = 0
        self._away_until = 0.0
        self._problem = ""
        #: Why the server takes no messages at the moment.
        self.blocked = ""

    @property
    def is_open(self) -> bool:
        """Whether there is a connection of this process's own, as far as anybody knows."""
        return self._channel is not None and self._pid == os.getpid()

    @contextmanager
    def use(self) -> Iterator[Any]:
        """Give the channel; after any error the connection is dropped.

        Raises:
            BrokerUnavailable: it cannot be opened, or what was done with it failed.
        """
        channel = self._open()
        try:
            yield channel
        except BrokerUnavailable:
            self.drop()
            raise
        except Exception as error:
            # Whatever the client makes of what came, or did not come, over the line: nobody
            # knows any more which answer would be the next.
            self.drop()
            raise BrokerUnavailable(_describe(error)) from error
        except BaseException:
            # A time limit struck an actor that enqueues, perhaps in the middle of a frame.
            self.drop()
            raise

    def wait(self, timeout: float) -> None:
        """Handle what comes within `timeout` seconds, at least one thing where one comes.

        Raises:
            BrokerUnavailable: the connection is broken.
        """
        with self.use(), suppress(TimeoutError):
            self._connection.drain_events(timeout=timeout)
            while True:
                self._connection.drain_events(timeout=0.001)

    def tick(self) -> None:
        """Let the server know that somebody is here; call it every few seconds.

        Raises:
            BrokerUnavailable: the connection is broken.
        """
        if self.is_open:
            self.wait(0.001)
            with self.use():
                self._connection.heartbeat_tick()

    def drop(self) -> None:
        """Break the connection; the server takes back what was not acknowledged on it."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is None:
            return
        if self._pid != os.getpid():
            _inherited.append(connection)
            return
        # What is broken may break while it is closed.
        with suppress(Exception):
            connection.collect()

    def close(self) -> None:
        """Take leave of the server."""
        if self.is_open:
            with suppress(Exception):  # it ends, one way or another
                self._connection.close()
        self.drop()

    def _open(self) -> Any:
        if self.is_open:
            return self._channel
        self.drop()
        if time.monotonic() < self._away_until:
            raise BrokerUnavailable(self._problem)
        connection = amqp.Connection(
            **{"connect_timeout": self._timeout, **self._options},
            frame_handler=_tolerant,
            on_blocked=self._on_blocked,
            on_unblocked=self._on_unblocked,
        )
        self._pid, self._connection, self.blocked = os.getpid(), connection, ""
        try:
            connection.connect()
            # Without it a server that is frozen would freeze this process.
            connection.transport.sock.settimeout(self._timeout)
            self._channel = amqp.Channel(connection, auto_decode=False)
            self._channel.open()
            self._prepare(self._channel)
        except Exception as error:  # as above
            self.drop()
            self._away_until = time.monotonic() + _PAUSE_SECONDS
            self._problem = f"{self._options['host']}: {_describe(error)}"
            raise BrokerUnavailable(self._problem) from error
        return self._channel

    def _on_blocked(self, reason: object) -> None:
        self.blocked = str(reason) or "no reason given"

    def _on_unblocked(self) -> None:
        self.blocked = ""


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _tolerant(connection: Any, callback: Any) -> Any:
    """Return py-amqp's reader of frames, which anybody's headers cannot stop.

    It decodes the properties of a message when they arrive: a date in the year 300,000
    would break every connection that the message is delivered to, again and again.
    """
    read = frame_handler(connection, callback)
    header, properties_at = 2, 12

    def read_any(frame: tuple[int, int, Any]) -> Any:
        kind, channel, content = frame
        if kind == header:
            try:
                amqp.Message()._load_properties(60, content, properties_at)
            except Exception:  # whatever the decoder stumbles over
                frame = (kind, channel, bytes(content[:properties_at]) + b"\0\0")
        return read(frame)

    return read_any
