"""Applies staff's assignment rules to what has just failed.

The commit that opens a dead letter or group marks it as awaiting the rules, and nothing
more: outcomes must be recorded whatever the rules say, also when a rule's owner was removed
a moment ago or the host's resolver raises. This duty of the dispatcher then looks at what is
marked, a second later. A mark is taken away once, so a person who gives a dead letter back
to nobody is not contradicted by the next turn.

Rows are taken with SKIP LOCKED: what a recorder or a person holds is left for the next turn,
so the duty never waits for them, nor they in a circle for it. Two dispatchers at once divide
the rows among them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Coalesce

from . import audit, deadletters, failuregroups
from .models import AssignmentRule, DeadLetter, FailureGroup
from .resolver import get_resolver
from .states import DeadLetterStatus

if TYPE_CHECKING:
    from .brokers.base import LedgerBroker

#: Rows of one transaction; keeps every lock short.
BATCH = 500


@dataclass(frozen=True, slots=True)
class _Kind:
    """What rules are applied to, and in which status it still needs somebody."""

    model: Any
    owner: str
    target: str
    seen_by: str
    statuses: tuple[str, ...]

    def take(self) -> list[Any]:
        """Return marked rows that nobody else holds."""
        rows = self.model.objects.filter(awaits_rules=True).order_by("pk")
        rows = rows.only("pk", "status", "queue", "actor", "error_class", f"{self.owner}_id")
        return list(rows.select_for_update(skip_locked=True, no_key=True)[:BATCH])

    def needs_somebody(self, row: Any) -> bool:
        """Return whether it is open and nobody has it."""
        return getattr(row, f"{self.owner}_id") is None and row.status in self.statuses


_KINDS = (
    _Kind(
        DeadLetter,
        "assignee",
        deadletters.TARGET,
        "view_deadletter",
        (DeadLetterStatus.PENDING,),
    ),
    _Kind(FailureGroup, "owner", failuregroups.TARGET, "view_failuregroup", FailureGroup.OPEN),
)


def apply(broker: "LedgerBroker | None" = None) -> int:
    """Give new dead letters and groups to whom the rules name; return how many."""
    return sum(_apply(kind) for kind in _KINDS)


def first_match(
    rules: Iterable[AssignmentRule], row: DeadLetter | FailureGroup
) -> AssignmentRule | None:
    """Return the rule that counts for a dead letter or group, if any."""
    return next((rule for rule in rules if _matches(rule, row)), None)


def _matches(rule: AssignmentRule, row: DeadLetter | FailureGroup) -> bool:
    return (
        _fits(rule.queue, row.queue)
        and _fits(rule.actor, row.actor)
        and _fits(rule.error_class, row.error_class)
    )


def _fits(wanted: str, value: str) -> bool:
    if wanted.endswith("*"):
        return value.startswith(wanted[:-1])
    return wanted in ("", value)


def _apply(kind: _Kind) -> int:
    given = 0
    rules: list[AssignmentRule] | None = None
    while True:
        with transaction.atomic():
            rows = kind.take()
            if not rows:
                return given
            rules = _usable(kind) if rules is None else rules
            ids = [row.pk for row in rows]
            kind.model.objects.filter(pk__in=ids).update(awaits_rules=False)
            given += _give(kind, [row for row in rows if kind.needs_somebody(row)], rules)


def _usable(kind: _Kind) -> list[AssignmentRule]:
    """Return the rules whose owner may be given this, in their order."""
    rules = AssignmentRule.objects.filter(is_active=True, assignee__is_active=True)
    resolver = get_resolver()
    return [
        rule
        for rule in rules.select_related("assignee").order_by("position", "pk")
        if resolver.may(rule.assignee, kind.seen_by)
    ]


def _give(kind: _Kind, rows: list[Any], rules: list[AssignmentRule]) -> int:
    chosen: dict[int, list[int]] = {}
    for row in rows:
        if (rule := first_match(rules, row)) is not None:
            chosen.setdefault(rule.pk, []).append(row.pk)
    for rule in rules:
        if ids := chosen.get(rule.pk):
            kind.model.objects.filter(pk__in=ids).update(**_values(kind, rule))
            to = rule.assignee.get_username()
            why = f"by rule: {rule}"
            audit.record("assign", kind.target, ids, by=None, reason=why, to=to, rule=rule.pk)
    return sum(map(len, chosen.values()))


def _values(kind: _Kind, rule: AssignmentRule) -> dict[str, Any]:
    values: dict[str, Any] = {kind.owner: rule.assignee}
    if kind.model is DeadLetter and rule.due_hours is not None:
        # What a person has set before it failed again stands.
        soon = F("died_at") + timedelta(hours=rule.due_hours)
        values["due_at"] = Coalesce("due_at", soon)
    return values
