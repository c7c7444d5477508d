"""What a message carries: which of it is sensitive, and its encrypted and masked forms.

A message that is sensitive says so in its option `sensitive`: names of fields, positions of
arguments, or "*" for all. With a key set, its arguments, and the messages its options carry
for later, are one encrypted token in the option `sealed`, in the ledger and in the broker.
All other options stay readable: retries, rescue, requeue and limits need no key.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dramatiq import Actor, get_broker
from dramatiq.message import Message, get_encoder

from . import encryption, masking
from .exceptions import InvalidMessage, Undecryptable
from .signatures import position_names

#: The option that carries the token.
SEALED = "sealed"
#: Stands among sensitive names for everything the message carries.
EVERYTHING = "*"
#: What stands for a value that was erased.
ERASED = "[erased]"
#: Before the token of a sealed result; no JSON begins so.
_RESULT = "sealed:"
#: Options that carry other messages, or texts made of them.
_CARRIERS = ("pipe_target", "group_completion_callbacks")
_PRIVATE = (*_CARRIERS, "traceback")

Actors = Mapping[str, Actor[Any, Any]]
Fields = Mapping[str, Any]


# --- What is sensitive ------------------------------------------------------------------
def known_actors() -> Actors:
    """Return the actors of this process."""
    return get_broker().actors


def sensitive_parts(fields: Fields, actors: Actors) -> frozenset[str | int]:
    """Return the sensitive names and positions of one message, as it and its actor say."""
    parts: set[str | int] = set()
    options = fields.get("options")
    declared = options.get("sensitive") if isinstance(options, Mapping) else None
    if isinstance(declared, list | tuple):
        parts.update(part for part in declared if isinstance(part, str | int))
    actor = actors.get(str(fields.get("actor_name")))
    if actor is not None:
        parts.update(actor.options.get("sensitive") or ())
    parts = {part.lower() if isinstance(part, str) else part for part in parts}
    args = fields.get("args")
    if parts and actor is not None and isinstance(args, list | tuple):
        names = position_names(actor, len(args))
        parts.update(index for index, name in enumerate(names) if name.lower() in parts)
    return frozenset(parts)


def is_sensitive(message: Message[Any], actors: Actors) -> bool:
    """Return whether a message, or one that it carries, declares anything sensitive."""
    if not message.options:
        # Most messages; nothing but the actor can declare anything then.
        actor = actors.get(message.actor_name)
        return actor is not None and bool(actor.options.get("sensitive"))
    return _is_sensitive(message.asdict(), actors)


def _is_sensitive(fields: Fields, actors: Actors) -> bool:
    return bool(sensitive_parts(fields, actors)) or any(
        _is_sensitive(carried, actors) for carried in _carried(fields)
    )


def _carried(fields: Fields) -> list[Fields]:
    options = fields.get("options")
    if not isinstance(options, Mapping):
        return []
    found = [options.get(_CARRIERS[0]), *(options.get(_CARRIERS[1]) or ())]
    return [carried for carried in found if isinstance(carried, Mapping)]


# --- In the ledger and in the broker ----------------------------------------------------
def encode(message: Message[Any], actors: Actors, *, inherits: bool = False) -> bytes:
    """Return the bytes to keep: encrypted where the message is sensitive and a key is set.

    Args:
        message: what to run.
        actors: those this process knows.
        inherits: whether a sensitive job's result or arguments may be in it.

    Raises:
        InvalidMessage: it has the option `sealed`, which is written here only.
        TypeError, ValueError: the encoder cannot express the arguments.
    """
    fields: Fields = {
        **message.asdict(),
        "options": {key: value for key, value in message.options.items() if key != "eta"},
    }
    if SEALED in message.options:
        raise InvalidMessage("option sealed is written by the ledger only.", field=SEALED)
    if inherits or _is_sensitive(fields, actors):
        fields = _marked(fields, actors)
        if inherits:
            fields = {**fields, "options": {**fields["options"], "sensitive": [EVERYTHING]}}
        if encryption.is_on():
            fields = _sealed(fields)
    return get_encoder().encode(dict(fields))


def _marked(fields: Fields, actors: Actors) -> Fields:
    """Return the message with what is sensitive written down, in those it carries too.

    Whoever shows it later may not know the actor.
    """
    options = dict(fields["options"])
    if parts := sensitive_parts(fields, actors):
        options["sensitive"] = sorted(parts, key=str)
    if isinstance(target := options.get(_CARRIERS[0]), Mapping):
        options[_CARRIERS[0]] = _marked({"options": {}, **target}, actors)
    if callbacks := options.get(_CARRIERS[1]):
        options[_CARRIERS[1]] = [_marked({"options": {}, **each}, actors) for each in callbacks]
    return {**fields, "options": options}


def _sealed(fields: Fields) -> Fields:
    options = fields["options"]
    secret = {
        "args": fields["args"],
        "kwargs": fields["kwargs"],
        "options": {name: options[name] for name in _PRIVATE if name in options},
    }
    kept = {name: value for name, value in options.items() if name not in _PRIVATE}
    kept[SEALED] = encryption.seal(get_encoder().encode(secret))
    return {**fields, "args": (), "kwargs": {}, "options": kept}


def opened(fields: Fields) -> Fields:
    """Return the message as it was before it was sealed.

    Raises:
        Undecryptable: the key is missing, or the token was tampered with.
    """
    options = fields.get("options")
    if not isinstance(options, Mapping) or SEALED not in options:
        return fields
    secret = get_encoder().decode(encryption.unseal(str(options[SEALED])))
    kept = {name: value for name, value in options.items() if name != SEALED}
    return {
        **fields,
        "args": secret["args"],
        "kwargs": secret["kwargs"],
        "options": {**kept, **secret["options"]},
    }


def open_message(message: Message[Any]) -> Message[Any]:
    """Return a message that can be run.

    Raises:
        Undecryptable: the key is missing, or the token was tampered with.
    """
    if SEALED not in message.options:
        return message
    return Message(**opened(message.asdict()))


def is_sealed(data: bytes) -> bool:
    """Return whether encoded bytes are a sealed message."""
    return bool(_token(data))


def _token(data: bytes) -> str:
    if SEALED.encode() not in data:
        return ""
    try:
        options = get_encoder().decode(data).get("options") or {}
    except Exception:
        # Boundary: whatever bytes stand in the ledger, and whatever encoder reads them.
        return ""
    token = options.get(SEALED) if isinstance(options, Mapping) else None
    return token if isinstance(token, str) else ""


def seal_result(encoded: str) -> str:
    """Return a sensitive job's result, encoded as JSON, as it is kept."""
    return _RESULT + encryption.seal(encoded.encode()) if encryption.is_on() else encoded


def open_result(kept: str) -> str:
    """Return a result as JSON.

    Raises:
        Undecryptable: the key is missing, or the token was tampered with.
    """
    if not kept.startswith(_RESULT):
        return kept
    return encryption.unseal(kept.removeprefix(_RESULT)).decode()


def renewed(data: bytes, actors: Actors) -> bytes:
    """Return encoded bytes encrypted with the newest key, the same where they are already.

    Raises:
        Undecryptable: the key is missing, or the token was tampered with.
    """
    token = _token(data)
    if encryption.is_current(token):
        return data
    fields: Fields = get_encoder().decode(data)
    if not token:
        if not _is_sensitive(fields, actors):
            return data
        fields = _marked(fields, actors)
    return get_encoder().encode(dict(_sealed(opened(fields))))


def renewed_result(kept: str) -> str:
    """Return a result encrypted with the newest key, the same where it is already.

    Raises:
        Undecryptable: the key is missing, or the token was tampered with.
    """
    if encryption.is_current(kept.removeprefix(_RESULT)):
        return kept
    return seal_result(open_result(kept))


def erased(data: bytes, *, everything: bool = False) -> bytes:
    """Return encoded bytes in which `ERASED` stands for every sensitive value.

    Args:
        data: a message; of one that cannot be read or decrypted, nothing is kept.
        everything: erase all arguments.
    """
    try:
        fields = decoded(data)
        outer = fields if fields is not None else {}
        seals = is_sealed(data) and encryption.is_on()
    except Undecryptable:
        seals = False
        outer = json.loads(data)
        outer = {**outer, "options": {**outer["options"], "sensitive": [EVERYTHING]}}
        outer["options"].pop(SEALED)
    if everything and isinstance(outer.get("options"), Mapping):
        outer = {**outer, "options": {**outer["options"], "sensitive": [EVERYTHING]}}
    kept = {**outer, **masked(outer, hide=lambda value: ERASED)} if outer else {}
    if not isinstance(kept.get("options"), Mapping):
        return json.dumps({"args": [], "kwargs": {}, "options": {}}).encode()
    # Where the sensitive part is as a whole, that of what it carries is too.
    if EVERYTHING in (kept["options"].get("sensitive") or ()):
        kept["options"] = {k: v for k, v in kept["options"].items() if k not in _PRIVATE}
    kept["options"].pop("traceback", None)
    return get_encoder().encode(dict(_sealed(kept) if seals else kept))


# --- For people -------------------------------------------------------------------------
def masked(
    fields: Fields,
    *,
    show: Callable[[str, Any], Any] | None = None,
    hide: Callable[[Any], Any] = lambda value: masking.MASK,
) -> dict[str, Any]:
    """Return arguments and options of an opened message with all that is sensitive masked.

    Args:
        fields: the message, and in its options those that it carries.
        show: what to make of each value that is not masked; called with its name.
        hide: what to put in the place of each that is.
    """
    actors = known_actors()
    parts = sensitive_parts(fields, actors)
    names = {part for part in parts if isinstance(part, str)}
    args, kwargs = fields.get("args"), fields.get("kwargs")
    options = fields.get("options")
    if EVERYTHING in names:
        args = [hide(value) for value in args] if isinstance(args, list | tuple) else hide(args)
        kwargs = {key: hide(kwargs[key]) for key in kwargs} if isinstance(kwargs, dict) else None
    else:
        args = _masked_args(fields, parts, names, actors, show, hide)
        kwargs = masking.mask(kwargs, names=names, show=show, hide=hide)
    if isinstance(options, Mapping):
        options = {
            name: _masked_carrier(value, show, hide)
            if name in _CARRIERS
            else masking.mask(value, names=names, name=name, show=show, hide=hide)
            for name, value in options.items()
        }
    return {"args": args, "kwargs": kwargs, "options": options}


def _masked_carrier(
    value: Any, show: Callable[[str, Any], Any] | None, hide: Callable[[Any], Any]
) -> Any:
    """Return the messages that an option carries, masked by what each of them declares."""
    if isinstance(value, list | tuple):
        return [_masked_carrier(each, show, hide) for each in value]
    if not isinstance(value, Mapping):
        return None if value is None else hide(value)
    return {**value, **masked(value, show=show, hide=hide)}


def _masked_args(
    fields: Fields,
    parts: frozenset[str | int],
    names: set[str],
    actors: Actors,
    show: Callable[[str, Any], Any] | None,
    hide: Callable[[Any], Any],
) -> Any:
    args = fields.get("args")
    if not isinstance(args, list | tuple):
        return masking.mask(args, names=names, show=show, hide=hide)
    actor = actors.get(str(fields.get("actor_name")))
    named: Sequence[str] = position_names(actor, len(args)) if actor else [""] * len(args)
    return [
        hide(value)
        if index in parts
        else masking.mask(value, names=names, name=named[index], show=show, hide=hide)
        for index, value in enumerate(args)
    ]


class Redactor:
    """Cuts a message's sensitive values out of texts; finds them when it is first asked."""

    def __init__(self, message: Message[Any]) -> None:
        self._message = message
        self._secrets: set[str] | None = None

    def __call__(self, text: str) -> str:
        """Return the text without them."""
        if self._secrets is None:
            self._secrets = secrets_of(self._message.asdict())
        return masking.redact(text, self._secrets)


def secrets_of(fields: Fields) -> set[str]:
    """Return the sensitive values of an opened message as text."""
    hidden: list[Any] = []
    masked(fields, hide=hidden.append)
    return masking.secrets_in(hidden)


def decoded(data: bytes) -> Fields | None:
    """Return the opened message behind encoded bytes, None where there is none.

    Raises:
        Undecryptable: the key is missing, or the token was tampered with.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return opened(found) if isinstance(found, dict) else None


def declared(actors: Actors) -> Iterable[str]:
    """Return the names of the actors that declare anything sensitive."""
    return [name for name, actor in actors.items() if actor.options.get("sensitive")]
