"""What commands are told, checked and turned into what use cases take."""

from argparse import ArgumentTypeError
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError
from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_naive, make_aware

from queueadmin.conf import settings
from queueadmin.models import DeadLetter

#: Exit code of a wrong argument, as the parser of arguments has it.
USAGE = 2
MOST_ROWS = 1_000
_MOST_HOURS = 10 * 366 * 24


def letters(
    *, ids: list[int], queue: str | None, actor: str | None, error: str | None, **options: Any
) -> list[int]:
    """Return the ids given, or those a filter finds; one more than may be done at once."""
    wanted = {"queue": queue, "actor": actor, "error_class": error}
    named = {name: value for name, value in wanted.items() if value}
    if bool(ids) == bool(named):
        raise CommandError(
            "Name dead letters by id, or by --queue, --actor, --error; not both.", returncode=USAGE
        )
    if ids:
        return ids
    found = DeadLetter.objects.pending().filter(**named).order_by("pk")
    return list(found.values_list("pk", flat=True)[: settings.BULK_LIMIT + 1])


def user(name: str | None) -> Any:
    """Return the user who acts; None, a program, where none is named."""
    if name is None:
        return None
    model = get_user_model()
    try:
        return model._default_manager.get_by_natural_key(name)
    except model.DoesNotExist:
        raise CommandError(f"No user is named {name!r}.", returncode=USAGE) from None


def key(text: str) -> int:
    """Return the id of a row."""
    number = int(text)
    # SQLite raises on more than its largest integer.
    if not 0 < number < 2**63:
        raise ArgumentTypeError(f"{text} is no id")
    return number


def hours(text: str) -> timedelta:
    """Return an age in hours."""
    number = float(text)
    if not 0 <= number <= _MOST_HOURS:
        raise ArgumentTypeError(f"{text} is not between 0 and {_MOST_HOURS}")
    return timedelta(hours=number)


def limit(text: str) -> int:
    """Return how many rows to show at most."""
    number = int(text)
    if not 1 <= number <= MOST_ROWS:
        raise ArgumentTypeError(f"{number} is not between 1 and {MOST_ROWS}")
    return number


def moment(text: str) -> datetime:
    """Return a time, in the site's zone where it names none."""
    found = parse_datetime(text)
    if found is None:
        raise ArgumentTypeError(f"{text!r} is no time, such as 2030-01-31T08:00+01:00")
    return make_aware(found) if is_naive(found) else found
