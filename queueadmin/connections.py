"""Keeps worker threads' database connections, and drops those that would do harm."""

import logging
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from django.db import Error as DatabaseProblem
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Interrupt, Middleware

from .exceptions import Cancelled
from .time_limits import was_struck

logger = logging.getLogger(__name__)


class _Thread(threading.local):
    """What a thread knows of its connections.

    To ask Django for them costs a job more than anything else that is done before it.
    """

    def __init__(self) -> None:
        #: Those it has opened, by alias.
        self.opened: dict[str, BaseDatabaseWrapper] = {}
        #: Those whose transaction was open before the run that is going on.
        self.held: list[BaseDatabaseWrapper] = []


_thread = _Thread()
_INTERRUPTS = (Interrupt, Cancelled)


def _note_opened(connection: BaseDatabaseWrapper, **_: Any) -> None:
    # A copy that a job makes for itself has the same alias; whoever made it looks after it.
    if any(connection is own for own in connections.all(initialized_only=True)):
        _thread.opened[connection.alias] = connection


connection_created.connect(_note_opened, dispatch_uid="queueadmin.connections")


class Connections(Middleware):
    """Keeps a worker thread's database connections, and drops those that broke.

    It also drops those that a run has left inside a transaction. An interrupt strikes between
    any two instructions of Python, so also where the database has begun a transaction and Django
    has not noted it yet, or has noted it and the `with` that would end it is not entered yet.
    Nobody would ever end such a transaction: on SQLite it locks out every writer, the recorder
    of this process among them, for as long as the thread is idle; on PostgreSQL the thread's
    next jobs run in it, and count as completed without one of their rows.

    It looks at the end of a run, since the next one may be hours away, and as the outermost of
    all, since a project's own middleware may keep a transaction open around a job.
    """

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Check connections that met an error or have had their time."""
        held: list[BaseDatabaseWrapper] = []
        _thread.held = held
        for connection in _thread.opened.values():
            if connection.in_atomic_block:
                # That of a test which runs the jobs inside its own.
                held.append(connection)
            else:
                connection.close_if_unusable_or_obsolete()

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Drop the connections that the run has left inside a transaction, or may have.

        After an interrupt that is every one of the thread: also one that was being opened, of
        which the thread does not know yet. No interrupt strikes here: the time limit's own hook
        has disarmed it before.
        """
        # An actor may have caught the interrupt, or failed by its consequences.
        if was_struck() or isinstance(exception, _INTERRUPTS):
            self._drop(connections.all(initialized_only=True), message, after_interrupt=True)
            return
        for connection in _thread.opened.values():
            if _is_in_transaction(connection):
                self._drop([connection], message, after_interrupt=False)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Do the same after an actor that has skipped its message itself."""
        self.after_process_message(broker, message)

    def before_worker_thread_shutdown(self, broker: Broker, thread: Any) -> None:
        """Close the thread's connections."""
        connections.close_all()

    def _drop(
        self,
        astray: Iterable[BaseDatabaseWrapper],
        message: MessageProxy,
        *,
        after_interrupt: bool,
    ) -> None:
        for connection in astray:
            is_open = connection.connection is not None or connection.in_atomic_block
            if not is_open or any(connection is held for held in _thread.held):
                continue
            if after_interrupt:
                logger.info(
                    "Job %s of %s was interrupted: closing its thread's connection to %s.",
                    message.message_id,
                    message.actor_name,
                    connection.alias,
                )
            else:
                logger.warning(
                    "%s left a transaction open on %s: what it wrote there is rolled back, "
                    "and the connection closed. job=%s",
                    message.actor_name,
                    connection.alias,
                    message.message_id,
                )
            _close(connection)


# Of libpq, for both drivers: no transaction, no connection.
_IDLE, _UNKNOWN = 0, 4


def _is_in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a transaction is open, by Django's account or by the driver's.

    Without a question to the database: every job pays for it.
    """
    driver: Any = connection.connection
    if connection.in_atomic_block:
        return True
    if driver is None:
        return False
    try:
        if connection.vendor == "sqlite":
            return bool(driver.in_transaction)
        if connection.vendor == "postgresql":
            return driver.info.transaction_status not in (_IDLE, _UNKNOWN)
    except connection.Database.Error:  # type: ignore[attr-defined]  # every backend has it
        pass  # closed without Django's knowledge, and its transaction with it
    return False


def _close(connection: BaseDatabaseWrapper) -> None:
    """Close the connection, by which its transaction is rolled back, and forget its blocks.

    With a block on its books, Django would keep the closed connection until that block ends.
    """
    connection.in_atomic_block = connection.closed_in_transaction = False
    connection.needs_rollback = False
    connection.atomic_blocks, connection.savepoint_ids = [], []
    # The driver's connection is let go of in any case.
    with suppress(DatabaseProblem):
        connection.close()
    if connection.connection is not None:
        # SQLite in memory, as in a project's tests: Django keeps it, or all would be gone.
        connection.rollback()
