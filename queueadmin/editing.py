"""Edit and requeue: staff change the arguments of a job that failed for good.

The form of an edit comes from the actor's signature. What is masked for people is not
offered and stays as it is, so that nobody can see a secret by editing beside it. The former
message is kept as a revision, the change is in the audit trail, and the job runs again in the
same transaction: an edit that nobody requeues does not exist.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.utils.translation import gettext as _
from dramatiq.message import Message

from . import audit, deadletters, payloads
from .clock import now
from .conf import settings
from .exceptions import InvalidMessage, Undecryptable
from .masking import is_sensitive
from .messages import validate
from .models import DeadLetter, Job, Revision
from .signatures import AnyActor, Field, check, describe
from .states import DeadLetterStatus, JobState

if TYPE_CHECKING:
    from django.contrib.auth.models import User

PERMISSION = "edit_deadletter"
#: How much of a value the audit trail keeps.
_KEPT = 500


class NotEditable(Exception):
    """Nobody can edit this job now; the text says why."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One parameter of the actor's function, as a form shows it."""

    name: str
    #: What is expected, as Python writes it; empty where nothing is checked.
    expected: str
    #: What it is now: text as it is where `is_plain`, else JSON; empty where it is not given.
    text: str
    is_given: bool
    is_required: bool
    #: The actor's default as JSON, empty where there is none that can be shown.
    default: str
    is_plain: bool
    #: Masked, or no JSON: it stays as it is.
    is_hidden: bool


@dataclass(frozen=True, slots=True)
class Change:
    """What an edit makes of one argument, as texts."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Draft:
    """What there is to edit, and the version of the message that it was read from."""

    version: str
    arguments: tuple[Argument, ...]


def draft(job: Job) -> Draft:
    """Return what may be edited of a job.

    Raises:
        NotEditable: its message cannot be read here, or its actor is not known here.
    """
    fields, actor = _read(job)
    return Draft(_version(job), tuple(slot.argument for slot in _slots(fields, actor)))


def preview(job: Job, texts: Mapping[str, str]) -> tuple[Change, ...]:
    """Return what an edit would change, without changing it.

    Args:
        job: the job.
        texts: new texts by the arguments' names; others stay as they are.

    Raises:
        NotEditable: as `draft`.
        InvalidMessage: a value is not what the actor takes; `field` names the argument.
    """
    fields, actor = _read(job)
    return _edited(fields, actor, texts)[1]


def requeue(
    dead_letter_id: int,
    texts: Mapping[str, str],
    *,
    version: str,
    by: "User | None",
    reason: str = "",
    confirmed: str = "",
) -> tuple[Change, ...]:
    """Change the arguments of a pending dead letter's job and give it a new round of attempts.

    Two people who press at once: the rows are locked, so the second finds the dead letter
    requeued, or another version of the message, and changes nothing.

    Args:
        dead_letter_id: the dead letter.
        texts: new texts by the arguments' names; others stay as they are.
        version: of the draft that was edited.
        by: who asks; None for a program.
        reason: why, in that person's words.
        confirmed: name of the actor, where it is not safe to repeat.

    Raises:
        NotPermitted: `by` may not edit, or not requeue.
        DeadLetter.DoesNotExist: there is no such dead letter.
        NotEditable: it is not pending any more, was edited meanwhile, or cannot be requeued.
        InvalidMessage: a value is not what the actor takes, or nothing was changed.
    """
    audit.require(by, PERMISSION)
    audit.require(by, "requeue_deadletter")
    with transaction.atomic():
        # The dead letter before its job, as everywhere, and only while it is pending: of a job
        # that runs again the recorder locks the row first, then the dead letter, and each
        # would wait for the other.
        letter = (
            DeadLetter.objects.select_for_update(no_key=True)
            .filter(status=DeadLetterStatus.PENDING)
            .only("pk", "status", "job_id")
            .filter(pk=dead_letter_id)
            .first()
        )
        if letter is None:
            DeadLetter.objects.only("pk").get(pk=dead_letter_id)
            raise NotEditable(_("It is not pending any more; somebody was faster."))
        job = Job.objects.select_for_update().get(pk=letter.job_id)
        if job.state != JobState.DEAD:
            raise NotEditable(_("It is not pending any more; somebody was faster."))
        if _version(job) != version:
            raise NotEditable(_("Somebody else has edited it meanwhile; look again."))
        fields, actor = _read(job)
        data, changes = _edited(fields, actor, texts)
        if not changes:
            raise InvalidMessage(_("Nothing was changed."))
        Revision.objects.create(
            job=job,
            message=bytes(job.message),
            replaced_at=now(),
            replaced_by_name=by.get_username() if by is not None else audit.SYSTEM,
        )
        Job.objects.filter(pk=job.pk, state=JobState.DEAD).update(
            message=data, is_sealed=payloads.is_sealed(data)
        )
        audit.record(
            "edit",
            deadletters.TARGET,
            [letter.pk],
            by=by,
            reason=reason.replace("\0", "").strip(),
            changes=[
                {
                    "name": change.name,
                    "before": change.before[:_KEPT],
                    "after": change.after[:_KEPT],
                }
                for change in changes
            ],
        )
        result = deadletters.requeue([letter.pk], by=by, reason=reason, confirmed=confirmed)
        if not result.done:
            # Undoes the edit, too.
            raise NotEditable(_("It cannot be requeued: %s.") % ", ".join(result.skipped))
    return changes


# --- Reading and writing arguments ------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Slot:
    """Where an argument stands in the message."""

    argument: Argument
    field: Field
    #: Its place among the arguments by position; None where it is given by name or not at all.
    index: int | None


def _version(job: Job) -> str:
    return hashlib.sha256(bytes(job.message)).hexdigest()[:32]


def _read(job: Job) -> tuple[dict[str, Any], AnyActor]:
    if job.erased_at is not None:
        raise NotEditable(_("Its payload was erased."))
    try:
        found = payloads.decoded(bytes(job.message))
    except Undecryptable as error:
        raise NotEditable(str(error)) from error
    except Exception as error:
        # Boundary: whatever bytes stand in the ledger.
        raise NotEditable(_("Its message cannot be read.")) from error
    fields = dict(found or {})
    is_whole = isinstance(fields.get("args"), list | tuple) and isinstance(
        fields.get("kwargs"), dict
    )
    if not is_whole or not {"queue_name", "actor_name", "options", "message_id"} <= fields.keys():
        raise NotEditable(_("Its message cannot be read."))
    actor = payloads.known_actors().get(str(fields["actor_name"]))
    if actor is None:
        raise NotEditable(
            _("The actor %s is not known here, so nobody can say what it takes.") % job.actor
        )
    return fields, actor


def _slots(fields: Mapping[str, Any], actor: AnyActor) -> Iterator[_Slot]:
    masked = payloads.masked(fields)
    described = describe(actor)
    positional = [field for field in described if field.by_position and not field.variadic]
    named = {field.name for field in described if field.by_name and not field.variadic}
    for field in described:
        index = positional.index(field) if field in positional else None
        if index is not None and index >= len(fields["args"]):
            index = None
        value, is_given = _value(fields, field, index, len(positional), named)
        shown, _shown = _value(masked, field, index, len(positional), named)
        is_plain = field.expected == "str" and not field.variadic
        if is_given:
            is_plain = is_plain and isinstance(value, str) and _is_printable(value)
        text, is_json = _text(value, is_plain=is_plain) if is_given else ("", True)
        is_hidden = is_given and (not is_json or shown != value)
        argument = Argument(
            name=field.name,
            expected=field.expected,
            text="" if is_hidden else text,
            is_given=is_given,
            is_required=field.is_required,
            default=_default(field),
            is_plain=is_plain,
            is_hidden=is_hidden,
        )
        yield _Slot(argument, field, index)


def _value(
    fields: Mapping[str, Any], field: Field, index: int | None, count: int, named: set[str]
) -> tuple[Any, bool]:
    """Return what the message gives for a parameter, and whether it gives anything."""
    args, kwargs = list(fields.get("args") or ()), dict(fields.get("kwargs") or {})
    if field.variadic == "list":
        return args[count:], len(args) > count
    if field.variadic == "map":
        rest = {name: value for name, value in kwargs.items() if name not in named}
        return rest, bool(rest)
    if index is not None and index < len(args):
        return args[index], True
    return kwargs.get(field.name), field.by_name and field.name in kwargs


def _default(field: Field) -> str:
    """Return the actor's default as text; secrets are not in code, but their names may say so."""
    if field.is_required or field.variadic or is_sensitive(field.name):
        return ""
    text, is_json = _text(field.default, is_plain=False)
    return text if is_json and len(text) <= _KEPT else ""


def _is_printable(text: str) -> bool:
    """Return whether people can see all of a text; marks that turn its direction they cannot."""
    return all(char.isprintable() or char in "\n\t" for char in text)


def _text(value: Any, *, is_plain: bool) -> tuple[str, bool]:
    """Return a value as the form's text, and whether that can be read back."""
    if is_plain:
        return str(value), True
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        return (text if _is_printable(text) else json.dumps(value)), True
    except (TypeError, ValueError):
        return "", False


def _edited(
    fields: Mapping[str, Any], actor: AnyActor, texts: Mapping[str, str]
) -> tuple[bytes, tuple[Change, ...]]:
    args, kwargs = list(fields["args"]), dict(fields["kwargs"])
    count = sum(field.by_position and not field.variadic for field in describe(actor))
    changes = []
    for slot in _slots(fields, actor):
        argument = slot.argument
        # Browsers send lines as CR LF.
        text = texts.get(argument.name, argument.text).replace("\r\n", "\n")
        if argument.is_hidden or text == argument.text.replace("\r\n", "\n"):
            continue
        if not argument.is_plain and not text.strip():
            _remove(actor, slot, args, kwargs)
        else:
            _put(slot, _parsed(argument, text), args, kwargs, count)
        changes.append(Change(argument.name, argument.text, text))
    check(actor, args, kwargs)
    message: Message[Any] = Message(**{**fields, "args": tuple(args), "kwargs": kwargs})
    validate(message)
    data = payloads.encode(message, payloads.known_actors())
    if len(data) > settings.MAX_MESSAGE_BYTES:
        raise InvalidMessage(
            f"The message would be {len(data):,} bytes long; "
            f"MAX_MESSAGE_BYTES allows {settings.MAX_MESSAGE_BYTES:,}."
        )
    return data, tuple(changes)


def _parsed(argument: Argument, text: str) -> Any:
    if argument.is_plain:
        return text
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(
            _('%(name)s must be JSON, for instance 12, "text" or [1, 2]: %(problem)s.')
            % {"name": argument.name, "problem": error},
            field=argument.name,
        ) from error


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _put(slot: _Slot, value: Any, args: list[Any], kwargs: dict[str, Any], count: int) -> None:
    field = slot.field
    if field.variadic:
        kind: type = list if field.variadic == "list" else dict
        if not isinstance(value, kind):
            raise InvalidMessage(
                _("%(name)s must be a JSON %(kind)s.")
                % {"name": field.name, "kind": "list" if kind is list else "object"},
                field=field.name,
            )
    if field.variadic == "list":
        args[count:] = value
    elif field.variadic == "map":
        for name in json.loads(slot.argument.text or "{}"):
            del kwargs[name]
        kwargs.update(value)
    elif slot.index is not None:
        args[slot.index] = value
    else:
        kwargs[field.name] = value


def _remove(actor: AnyActor, slot: _Slot, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Take an argument away, so that the actor's default counts."""
    field = slot.field
    if field.is_required or slot.index is not None:
        raise InvalidMessage(
            f"{actor.actor_name} needs {field.name} ({field.expected or 'JSON'}).", field=field.name
        )
    if field.variadic == "map":
        for name in json.loads(slot.argument.text):
            kwargs.pop(name, None)
    elif field.variadic == "list":
        del args[len(args) - len(json.loads(slot.argument.text)) :]
    else:
        kwargs.pop(field.name, None)
