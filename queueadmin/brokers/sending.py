"""Sends commands to Redis whose answers nobody waits for."""

import logging
import os
import time
from collections import deque
from typing import Any

import redis

logger = logging.getLogger(__name__)

# A connection used less long ago is taken for open. Where it is not, one push is lost.
_FRESH_SECONDS = 0.1
# What the server refused less long ago it is likely to refuse now.
_RECENT_SECONDS = 1.0


class Sender:
    """Sends commands and reads their answers when it sends the next ones.

    For what the ledger knows to be on its way, and looks for if it does not arrive: who
    enqueues a job has nothing to learn from the answer, and half of what a push costs is to
    wait for it. The server executes a command that it has got whether or not anybody reads the
    answer.

    Each connection is one thread's at a time and lies in a stack meanwhile, the last one used
    on top, so there are no more than threads that push at the same moment.

    Args:
        pool: makes the connections, and is nobody else's.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._idle: deque[_Line] = deque()
        self._pid = os.getpid()

    def send(self, *command: str | int | bytes) -> None:
        """Send a command.

        Raises:
            redis.RedisError: it could not be sent; or the server has just refused the last one
                of this connection, and is likely to refuse this one, too.
        """
        self._leave_inherited()
        try:
            line = self._idle.pop()
        except IndexError:
            line = _Line(self._pool.make_connection())
        try:
            refusal = line.collect()
            line.send(command)
        except BaseException:
            # A time limit may have struck in the middle of a command.
            line.drop()
            raise
        finally:
            self._idle.append(line)
        if refusal is not None:
            raise refusal

    def close(self) -> None:
        """Wait for the last answers and close the connections."""
        self._leave_inherited()
        while self._idle:
            line = self._idle.pop()
            try:
                refusal = line.collect()
            except redis.RedisError as error:
                refusal = error
            if refusal is not None:
                logger.warning("The last push may not have arrived: %s", refusal)
            line.drop()

    def _leave_inherited(self) -> None:
        """Forget the connections of a parent process, which goes on with them."""
        if self._pid != os.getpid():
            self._idle, self._pid = deque(), os.getpid()


class _Line:
    """One connection, and whether an answer is due on it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._is_open = self._is_due = False
        self._used_at = 0.0

    def collect(self) -> redis.RedisError | None:
        """Read the answer that is due; return the refusal if it is a recent one.

        A connection that the server has closed is opened again for what comes next; what it
        had carried may be lost, and is looked for by others.

        Raises:
            redis.TimeoutError: the server does not answer.
        """
        was_due, self._is_due = self._is_due, False
        age = time.monotonic() - self._used_at
        refusal: redis.RedisError | None = None
        try:
            if was_due:
                try:
                    self._connection.read_response()
                except redis.ResponseError as error:
                    refusal = error
                was_due = False
            # Nobody tells that a server has gone but the end of what it sends.
            if self._is_open and age > _FRESH_SECONDS and self._connection.can_read(0):
                raise redis.ConnectionError("The server has sent what nobody asked for.")
        except redis.ConnectionError as error:
            if was_due:
                logger.warning("Connecting again; the last push may not have arrived: %s", error)
            self.drop()
        if refusal is not None and age > _RECENT_SECONDS:
            logger.warning("The server refused a push %.0f s ago: %s", age, refusal)
            return None
        return refusal

    def send(self, command: tuple[str | int | bytes, ...]) -> None:
        """Send a command."""
        if not self._is_open:
            # The command would do it, too, but without asking Sentinels where the master is.
            self._connection.connect()
            self._is_open = True
        self._connection.send_command(*command)
        self._is_due, self._used_at = True, time.monotonic()

    def drop(self) -> None:
        """Close the connection; it opens again with the next command."""
        self._is_open = self._is_due = False
        self._connection.disconnect()
