"""Roles that only one process of the fleet may play at a time."""

from datetime import timedelta

from django.db import connection

from . import clock
from .ledger import sql
from .models import Lease


def acquire(role: str, holder: str, duration: timedelta) -> bool:
    """Take or renew the role for `duration`; return whether `holder` has it now.

    One statement decides: the row is taken when it is the holder's own or has expired by
    the ledger's clock.
    """
    at = clock.now()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO queueadmin_lease (role, holder, expires_at) VALUES (%s, %s, %s) "
            "ON CONFLICT (role) DO UPDATE SET holder = excluded.holder, "
            "expires_at = excluded.expires_at "
            "WHERE queueadmin_lease.holder = excluded.holder "
            "OR queueadmin_lease.expires_at < %s",
            [role, holder, sql.timestamp(at + duration), sql.timestamp(at)],
        )
        return bool(cursor.rowcount == 1)


def is_held(role: str) -> bool:
    """Return whether anybody has the role."""
    return Lease.objects.filter(role=role, expires_at__gt=clock.now()).exists()


def release(role: str, holder: str) -> None:
    """Give the role back, if `holder` has it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM queueadmin_lease WHERE role = %s AND holder = %s", [role, holder]
        )
