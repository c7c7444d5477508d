"""The ledger's time: the host's clock corrected by what the database says.

Due times and leases of several hosts must agree, so every process measures how far its
own clock is off the database's and works with the corrected time.
"""

from datetime import datetime, timedelta

from django.db import connection
from django.utils import timezone

_offset = timedelta()


def now() -> datetime:
    """Return the current time by the ledger's clock, aware and in UTC."""
    return timezone.now() + _offset


def now_ms() -> int:
    """Return the current time by the ledger's clock in milliseconds since 1970."""
    return round(now().timestamp() * 1000)


def synchronise() -> timedelta:
    """Measure the host clock's error against the database and correct `now()` by it.

    SQLite has no clock of its own, so there the host's is the truth. The database may have
    looked at its clock at any time between question and answer, so an error is known only to
    within half the round trip (Cristian 1989, "Probabilistic clock synchronization"). One that
    may be none is ignored, and so is one under 50 ms.
    """
    global _offset
    if connection.vendor == "sqlite":
        _offset = timedelta()
        return _offset
    before = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (theirs,) = cursor.fetchone()
    doubt = (timezone.now() - before) / 2
    error = theirs - (before + doubt)
    _offset = error if abs(error) > max(doubt, timedelta(milliseconds=50)) else timedelta()
    return _offset
