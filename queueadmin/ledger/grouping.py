"""Keeps failure groups up with the dead letters that a batch of endings opens."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..fingerprints import fingerprint
from . import sql

if TYPE_CHECKING:
    from .endings import Ending

_COLUMNS = (
    ("fingerprint", "text"),
    ("queue", "text"),
    ("actor", "text"),
    ("error_class", "text"),
    ("error_message", "text"),
    ("first_seen_at", "timestamptz"),
    ("last_seen_at", "timestamptz"),
    ("first_release", "text"),
    ("last_release", "text"),
    ("deaths", "bigint"),
)
_NAMES = ", ".join(name for name, _ in _COLUMNS)
_OLD = "queueadmin_failuregroup"
# A resolved group that fails again has regressed. A snooze ends at its date, its count, or
# with a failure of another release, whatever comes first.
_WAKES = (
    f"{_OLD}.deaths + excluded.deaths >= {_OLD}.snoozed_deaths "
    f"OR excluded.last_seen_at >= {_OLD}.snoozed_until "
    f"OR ({_OLD}.snoozed_release <> '' AND excluded.last_release <> {_OLD}.snoozed_release)"
)
_UPDATE = (
    f"status = CASE WHEN {_OLD}.status = 'resolved' THEN 'regressed' "
    f"WHEN {_OLD}.status = 'snoozed' AND ({_WAKES}) THEN 'open' ELSE {_OLD}.status END, "
    f"regressed_at = CASE WHEN {_OLD}.status = 'resolved' THEN excluded.last_seen_at "
    f"ELSE {_OLD}.regressed_at END, "
    f"regressions = {_OLD}.regressions + CASE WHEN {_OLD}.status = 'resolved' THEN 1 ELSE 0 END, "
    f"awaits_rules = {_OLD}.awaits_rules "
    f"OR ({_OLD}.status = 'resolved' AND {_OLD}.owner_id IS NULL), "
    f"deaths = {_OLD}.deaths + excluded.deaths, "
    "last_seen_at = excluded.last_seen_at, last_release = excluded.last_release"
)


def group(endings: "Sequence[Ending]") -> list[sql.Statement]:
    """Return what counts jobs that died in their groups, adds new groups, reopens resolved ones.

    One statement whatever the number of failures, in the order of fingerprints, so that
    two recorders cannot lock each other out. Whoever resolves a group at the same time
    either comes first, then it regresses here, or sees the new count.
    """
    first: dict[str, Ending] = {}
    last: dict[str, Ending] = {}
    deaths: dict[str, int] = {}
    for ending in endings:
        key = fingerprint(ending.actor, ending.error_class, ending.error_message)
        first.setdefault(key, ending)
        if key not in last or ending.finished_at >= last[key].finished_at:
            last[key] = ending
        deaths[key] = deaths.get(key, 0) + 1
    if not first:
        return []
    rows = [
        (
            key,
            ending.queue,
            ending.actor,
            ending.error_class,
            ending.error_message[:2_000],
            ending.finished_at,
            last[key].finished_at,
            ending.release,
            last[key].release,
            deaths[key],
        )
        for key, ending in sorted(first.items())
    ]
    return [
        (
            f"INSERT INTO queueadmin_failuregroup ({_NAMES}, status, ticket_url, resolution, "  # noqa: S608
            "regressions, snoozed_release, awaits_rules) "
            f"SELECT {_NAMES}, 'open', '', '', 0, '', true FROM {sql.rows(_COLUMNS, 'o')} WHERE true "
            f"ON CONFLICT (fingerprint) DO UPDATE SET {_UPDATE}",
            [sql.encode(rows)],
        )
    ]
