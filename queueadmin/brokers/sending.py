"""Sends commands to Redis whose answers nobody waits for."""

import logging
import os
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import redis

logger = logging.getLogger(__name__)

Command = Sequence[str | int | bytes]

# A connection used less long ago is taken for open. Where it is not, one push is lost.
_FRESH_SECONDS = 0.1


class Sender:
    """Sends commands and reads their answers when it sends the next ones.

    For what the ledger knows to be on its way, and looks for if it does not arrive: who
    enqueues a job has nothing to learn from the answer, and half of what a push costs is to
    wait for it. The server executes what was sent whether or not anybody reads the answer.

    Each connection is one thread's at a time and lies in a stack meanwhile, the last one used
    on top, so there are no more than threads that push at the same moment.

    Args:
        pool: makes the connections.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._idle: deque[_Line] = deque()
        self._pid = os.getpid()

    def send(self, commands: Sequence[Command]) -> None:
        """Send the commands.

        Raises:
            redis.RedisError: they could not be sent; or the server has refused what was sent
                the last time.
        """
        line = self._take()
        try:
            line.collect()
            line.send(commands)
        except redis.ResponseError:
            # All answers of the last time have been read, the connection is in order.
            raise
        except BaseException:
            # A time limit may have struck in the middle of a command.
            line.drop()
            raise
        finally:
            self._idle.append(line)

    def close(self) -> None:
        """Wait for the last answers and close the connections."""
        while self._idle:
            line = self._idle.pop()
            try:
                line.collect()
            except redis.RedisError as error:
                logger.warning("The last push may not have arrived: %s", error)
            line.drop()

    def _take(self) -> "_Line":
        if self._pid != os.getpid():
            # Of the parent process, which goes on with them.
            self._idle, self._pid = deque(), os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return _Line(self._pool.make_connection())


class _Line:
    """One connection, and how many answers are due on it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._due = 0
        self._used_at = 0.0

    def collect(self) -> None:
        """Read the answers that are due.

        A connection that the server has closed is opened again for what comes next; what it
        had carried may be lost, and is looked for by others.

        Raises:
            redis.ResponseError: the first refusal, once all answers are read.
            redis.TimeoutError: the server does not answer.
        """
        refusal: redis.ResponseError | None = None
        was_due = self._due
        try:
            while self._due:
                self._due -= 1
                try:
                    self._connection.read_response()
                except redis.ResponseError as error:
                    refusal = refusal or error
            # Nobody tells that a server has gone but the end of what it sends.
            is_old = was_due and time.monotonic() - self._used_at > _FRESH_SECONDS
            if is_old and self._connection.can_read(0):
                raise redis.ConnectionError("The server has sent what nobody asked for.")
        except redis.ConnectionError as error:
            logger.warning("Connecting again (%s); the last push may not have arrived.", error)
            self.drop()
        if refusal is not None:
            raise refusal

    def send(self, commands: Sequence[Command]) -> None:
        """Send the commands, each of which has one answer."""
        if len(commands) == 1:
            self._connection.send_command(*commands[0])
        else:
            self._connection.send_packed_command(self._connection.pack_commands(commands))
        self._due += len(commands)
        self._used_at = time.monotonic()

    def drop(self) -> None:
        """Close the connection; it opens again with the next command."""
        self._due = 0
        self._connection.disconnect()
