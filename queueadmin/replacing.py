"""One argument of many jobs, from one value to another, each requeued with its change.

What one person repairs with `editing` for one dead letter, this does for a whole failure
group: the same reading, the same checks against the actor's signature, the same revision and
audit entries. It runs as a requeue operation, so that a wrong idea fails with its canary.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext as _

from . import audit, editing
from .deadletters import Skip, distinct
from .editing import Argument, NotEditable
from .exceptions import InvalidMessage
from .models import DeadLetter, Job, RequeueOperation

if TYPE_CHECKING:
    from django.contrib.auth.models import User

PERMISSION = "edit_many_deadletter"
#: Jobs whose messages a preview reads; so many take about 0.15 s.
LIMIT = 1_000
#: Newest jobs in which the values of the arguments are looked for.
_SEEN = 50
_SHOWN = 5
_BATCH = 200  # messages held in memory at once


@dataclass(frozen=True, slots=True)
class Replacement:
    """What of an argument becomes what, as an edit's form writes them."""

    argument: str
    before: str
    after: str

    @classmethod
    def of(cls, operation: RequeueOperation) -> "Replacement | None":
        """Return what an operation changes, if anything."""
        if not operation.argument:
            return None
        return cls(operation.argument, operation.argument_before, operation.argument_after)

    def fits(self, argument: Argument) -> bool:
        """Return whether an argument has the value that is to be replaced."""
        if argument.is_hidden:
            return False
        return self.before == argument.text or (
            not argument.is_plain and _same(self.before, argument.text)
        )


@dataclass(frozen=True, slots=True)
class Change:
    """What a replacement would do now."""

    #: Why each of the others is left alone; None for those that are changed.
    obstacles: dict[int, Skip | None]
    #: Some of those that are changed.
    examples: list[int] = field(default_factory=list)
    #: Why the actor does not take the new value, where that is so.
    problem: str = ""


def require(by: "User | None") -> None:
    """Let a program and whoever may edit many, edit, and requeue pass.

    Raises:
        NotPermitted: `by` lacks one of the permissions.
    """
    for verb in (PERMISSION, editing.PERMISSION, "requeue_deadletter"):
        audit.require(by, verb)


def seen(ids: Iterable[int]) -> dict[str, list[tuple[str, int]]]:
    """Return the arguments that may be changed, each with its most frequent values.

    Only the newest dead letters are looked at; what is masked for people is left out.
    """
    found: dict[str, Counter[str]] = {}
    letters = DeadLetter.objects.filter(pk__in=list(ids)[:LIMIT]).order_by("-died_at")
    for letter in letters.select_related("job").defer("traceback", "raw")[:_SEEN]:
        try:
            arguments = editing.draft(letter.job).arguments
        except NotEditable:
            continue
        for argument in arguments:
            if not argument.is_hidden:
                found.setdefault(argument.name, Counter())[argument.text] += 1
    return {name: values.most_common(_SHOWN) for name, values in found.items()}


def preview(ids: Iterable[int], replacement: Replacement) -> Change:
    """Return which of these pending dead letters it would change, and why not the others."""
    wanted = distinct(ids)
    obstacles: dict[int, Skip | None] = dict.fromkeys(wanted[LIMIT:], Skip.OVER_LIMIT)
    problem = ""
    for start in range(0, len(wanted[:LIMIT]), _BATCH):
        batch = wanted[start : min(start + _BATCH, LIMIT)]
        letters = DeadLetter.objects.filter(pk__in=batch).select_related("job")
        for letter in letters.only("pk", "actor", *(f"job__{name}" for name in _READ)):
            obstacles[letter.pk], why = _obstacle(letter.job, replacement)
            problem = problem or why
    changed = [pk for pk in wanted if obstacles.get(pk, Skip.GONE) is None]
    return Change(obstacles, changed[:_SHOWN], problem)


def requeue(
    ids: Iterable[int], replacement: Replacement, *, by: "User | None", reason: str
) -> dict[int, Skip]:
    """Change and requeue pending dead letters one by one; return why some were left alone.

    Raises:
        NotPermitted: `by` may not, or no longer.
    """
    require(by)
    left: dict[int, Skip] = {}
    for letter in DeadLetter.objects.filter(pk__in=list(ids)).select_related("job").order_by("pk"):
        # Read again: whoever has edited it since the list was frozen had the last word.
        skip, _why = _obstacle(letter.job, replacement)
        if skip is None:
            texts = {replacement.argument: replacement.after}
            version = editing.draft(letter.job).version
            try:
                editing.requeue(letter.pk, texts, version=version, by=by, reason=reason)
            except (NotEditable, InvalidMessage):
                skip = Skip.NOT_EDITABLE
        if skip is not None:
            left[letter.pk] = skip
    return left


_READ = ("id", "message", "erased_at", "actor", "state", "is_sealed", "queue")


def _obstacle(job: Job, replacement: Replacement) -> tuple[Skip | None, str]:
    try:
        arguments: Mapping[str, Argument] = {
            argument.name: argument for argument in editing.draft(job).arguments
        }
        argument = arguments.get(replacement.argument)
        if argument is None or argument.is_hidden:
            return Skip.NOT_EDITABLE, ""
        if not replacement.fits(argument):
            return Skip.OTHER_VALUE, ""
        if not editing.preview(job, {replacement.argument: replacement.after}):
            return Skip.UNCHANGED, _("The new value is the old one.")
    except NotEditable:
        return Skip.NOT_EDITABLE, ""
    except InvalidMessage as error:
        return Skip.REFUSED, str(error)
    return None, ""


def _same(first: str, second: str) -> bool:
    """Return whether two texts are the same JSON; nothing at all is only itself."""
    try:
        values: list[Any] = [json.loads(text) for text in (first, second)]
    except (ValueError, RecursionError):
        return first.strip() == second.strip()
    # 1 and true are equal in Python and not the same argument.
    return json.dumps(values[0], sort_keys=True) == json.dumps(values[1], sort_keys=True)
