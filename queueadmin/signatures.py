"""What an actor's function takes: checked before a job is enqueued, described for forms.

Values are judged by what JSON can carry: text, numbers, true and false, nothing, lists and
objects. An annotation that says something else (a UUID, an enum, a class of the project)
is not checked, because only the project's encoder knows what arrives for it.
"""

import types
import typing
from collections import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import Parameter, iscoroutinefunction, signature
from types import SimpleNamespace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from dramatiq import Actor
from dramatiq.message import Message

from .exceptions import InvalidMessage
from .masking import is_sensitive

AnyActor = Actor[Any, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter of an actor's function."""

    name: str
    #: What is expected, as Python writes it ("int | None"); empty where nothing is checked.
    expected: str
    is_required: bool
    default: Any = None
    #: "" for one value, "list" for `*args`, "map" for `**kwargs`.
    variadic: str = ""
    #: Whether it may be given by position, and by name.
    by_position: bool = True
    by_name: bool = True


class _Type(NamedTuple):
    """A compiled annotation."""

    words: str
    accepts: Callable[[Any], bool]
    #: The types of a container's parts by key, asked only to say where the trouble is.
    part: "Callable[[Any], _Type | None]" = lambda key: None


@dataclass(frozen=True, slots=True)
class _Signature:
    fields: tuple[Field, ...]
    types: dict[str, _Type | None]
    positional: tuple[str, ...]
    by_name: frozenset[str]
    required: tuple[str, ...]
    rest: str
    rest_by_name: str


_signatures: "WeakKeyDictionary[AnyActor, _Signature]" = WeakKeyDictionary()


def describe(actor: AnyActor) -> tuple[Field, ...]:
    """Return the parameters of the actor's function in their order."""
    return _of(actor).fields


def check(
    actor: AnyActor, args: Sequence[Any], kwargs: Mapping[str, Any], *, appended: int = 0
) -> None:
    """Check arguments against the actor's signature.

    Args:
        actor: who will get them; nothing is checked where it says `validate=False`.
        args: by position.
        kwargs: by name.
        appended: how many more a pipeline will add by position at run time.

    Raises:
        InvalidMessage: names the field, what is expected and what was given.
    """
    if actor.options.get("validate") is False:
        return
    found = _of(actor)
    count = len(args) + appended
    if count > len(found.positional) and not found.rest:
        raise InvalidMessage(
            f"{actor.actor_name} takes {_many(len(found.positional))} by position, "
            f"{count} were given.",
            field="args",
        )
    for index, value in enumerate(args):
        name = found.positional[index] if index < len(found.positional) else found.rest
        _check_value(actor, name, found.types[name], value)
    given = found.positional[:count]
    for name, value in kwargs.items():
        if name in found.by_name:
            if name in given:
                raise InvalidMessage(
                    f"{actor.actor_name}: {name} is given by position and by name.", field=name
                )
            _check_value(actor, name, found.types[name], value)
        elif found.rest_by_name:
            _check_value(actor, name, found.types[found.rest_by_name], value)
        else:
            raise InvalidMessage(_unexpected(actor, found, name), field=name)
    for name in found.required:
        if name not in given and (name not in kwargs or name not in found.by_name):
            words = found.types[name]
            kind = f" ({words.words})" if words else ""
            raise InvalidMessage(f"{actor.actor_name} needs {name}{kind}.", field=name)


def check_message(message: Message[Any], actors: Mapping[str, AnyActor]) -> None:
    """Check a message and those that follow it in its pipeline or group.

    An actor that this process does not know is not checked, nor is what gets its result.

    Raises:
        InvalidMessage: names the field, what is expected and what was given.
    """
    actor = actors.get(message.actor_name)
    if actor is not None:
        check(actor, message.args, message.kwargs)
    options = message.options
    if options.get("pipe_target") is not None:
        _check_pipeline(actor, options["pipe_target"], actors)
    for callback in options.get("group_completion_callbacks") or ():
        if isinstance(callback, dict) and (after := actors.get(str(callback.get("actor_name")))):
            check(after, callback.get("args") or (), callback.get("kwargs") or {})


def _check_pipeline(actor: AnyActor | None, target: Any, actors: Mapping[str, AnyActor]) -> None:
    """Check the later messages of a pipeline, whose last argument is a result to come."""
    while isinstance(target, dict):
        following = actors.get(str(target.get("actor_name")))
        options = target.get("options") or {}
        if actor is not None and following is not None:
            ignores = options.get("pipe_ignore") or actor.options.get("pipe_ignore")
            args, kwargs = target.get("args") or (), target.get("kwargs") or {}
            try:
                check(following, args, kwargs, appended=0 if ignores else 1)
            except InvalidMessage as error:
                raise InvalidMessage(f"Later in the pipeline: {error}", field=error.field) from None
        actor, target = following, options.get("pipe_target")


def position_names(actor: AnyActor, count: int) -> list[str]:
    """Return the parameter names of the first `count` arguments by position."""
    found = _of(actor)
    names = list(found.positional[:count])
    return names + [found.rest] * (count - len(names))


# --- Messages of errors -----------------------------------------------------------------
def _check_value(actor: AnyActor, name: str, kind: _Type | None, value: Any) -> None:
    if kind is None or kind.accepts(value):
        return
    path, expected, given = _locate(name, kind, value)
    # What an error says is logged and shown: no contents, and nothing that may be secret.
    text = f"a {type(given).__name__}"
    is_plain = given is None or isinstance(given, str | int | float)
    if is_plain and not actor.options.get("sensitive") and not is_sensitive(path):
        text = f"{given!r:.100} ({type(given).__name__})" if given is not None else "None"
    raise InvalidMessage(f"{actor.actor_name}: {path} must be {expected}, not {text}.", field=path)


def _locate(path: str, kind: _Type, value: Any) -> tuple[str, str, Any]:
    """Return where inside `value` the first wrong part is, what it must be, and what it is."""
    parts: Any = ()
    if isinstance(value, Mapping):
        parts = ((f"{path}.{key}", key, item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        parts = ((f"{path}[{index}]", index, item) for index, item in enumerate(value))
    for place, key, item in parts:
        inner = kind.part(key)
        if inner is not None and not inner.accepts(item):
            return _locate(place, inner, item)
    return path, kind.words, value


def _unexpected(actor: AnyActor, found: _Signature, name: str) -> str:
    near = get_close_matches(str(name), found.by_name, n=1)
    known = ", ".join(field.name for field in found.fields) or "nothing"
    hint = f"did you mean {near[0]!r}?" if near else f"it takes {known}."
    return f"{actor.actor_name} has no argument {name!r:.100}; {hint}"


def _many(count: int) -> str:
    return "no argument" if not count else f"at most {count} argument{'s' if count > 1 else ''}"


# --- Reading signatures -----------------------------------------------------------------
def _of(actor: AnyActor) -> _Signature:
    found = _signatures.get(actor)
    if found is None:
        # Two threads may both read it; they find the same.
        found = _signatures[actor] = _read(actor.fn)
    return found


_ANYTHING = (
    Parameter("args", Parameter.VAR_POSITIONAL),
    Parameter("kwargs", Parameter.VAR_KEYWORD),
)


def _read(function: Callable[..., Any]) -> _Signature:
    wrapped = getattr(function, "__wrapped__", None)
    if iscoroutinefunction(wrapped):
        function = wrapped  # Dramatiq's own wrapper around an async actor
    try:
        # Not through other decorators: what they take is what they are called with.
        parameters: Sequence[Parameter] = tuple(
            signature(function, follow_wrapped=False).parameters.values()
        )
    except (TypeError, ValueError):
        parameters = _ANYTHING  # a built-in that tells nothing
    kinds = {parameter.name: _compile(_annotation(function, parameter)) for parameter in parameters}
    return _Signature(
        fields=tuple(_field(parameter, kinds[parameter.name]) for parameter in parameters),
        types=kinds,
        positional=tuple(p.name for p in parameters if p.kind in _BY_POSITION),
        by_name=frozenset(p.name for p in parameters if p.kind in _BY_NAME),
        required=tuple(
            p.name
            for p in parameters
            if p.default is Parameter.empty and p.kind in (*_BY_POSITION, *_BY_NAME)
        ),
        rest=next((p.name for p in parameters if p.kind is Parameter.VAR_POSITIONAL), ""),
        rest_by_name=next((p.name for p in parameters if p.kind is Parameter.VAR_KEYWORD), ""),
    )


_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_VARIADIC: dict[Any, str] = {Parameter.VAR_POSITIONAL: "list", Parameter.VAR_KEYWORD: "map"}


def _field(parameter: Parameter, kind: _Type | None) -> Field:
    variadic = _VARIADIC.get(parameter.kind, "")
    has_default = parameter.default is not Parameter.empty
    return Field(
        name=parameter.name,
        expected=kind.words if kind else "",
        is_required=not has_default and not variadic,
        default=parameter.default if has_default else None,
        variadic=variadic,
        by_position=parameter.kind in _BY_POSITION,
        by_name=parameter.kind in _BY_NAME,
    )


def _annotation(function: Any, parameter: Parameter) -> Any:
    """Return a parameter's annotation; Any where its name cannot be resolved."""
    if parameter.annotation is Parameter.empty:
        return Any
    holder = SimpleNamespace(__annotations__={"it": parameter.annotation})
    names = getattr(function, "__globals__", {})
    try:
        found = typing.get_type_hints(holder, globalns=names)["it"]
        hash(found)
        # `x: int = None` was how Optional was written, and still is.
        return found | None if parameter.default is None else found
    except Exception:
        # Boundary: an annotation may be any expression, for instance of a name that is
        # imported for type checkers only.
        return Any


def _compile(annotation: Any) -> _Type | None:
    """Return how to check for an annotation, None for one that is not checked."""
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if isinstance(annotation, typing.NewType):
        return _compile(annotation.__supertype__)
    if typing.get_origin(annotation) is typing.Annotated:
        return _compile(typing.get_args(annotation)[0])
    if hasattr(annotation, "__value__"):  # an alias made by the `type` statement
        return _compile(annotation.__value__)
    if typing.is_typeddict(annotation):
        return _typed_dict(annotation)
    origin = typing.get_origin(annotation) or annotation
    arguments = typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _union(arguments)
    if origin is typing.Literal:
        return _literal(arguments)
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return _fixed_tuple(arguments)
    if origin in _LISTS:
        return _list(origin.__name__, arguments)
    if origin in _MAPS:
        return _map(arguments)
    return None


_SCALARS: dict[Any, _Type] = {
    int: _Type("int", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    float: _Type(
        "float", lambda value: isinstance(value, int | float) and not isinstance(value, bool)
    ),
    str: _Type("str", lambda value: isinstance(value, str)),
    bool: _Type("bool", lambda value: isinstance(value, bool)),
    None: _Type("None", lambda value: value is None),
    types.NoneType: _Type("None", lambda value: value is None),
}
# What JSON makes of each is a list, and of a mapping an object whose keys are text.
_LISTS = (list, tuple, set, frozenset)
_MAPS = (dict, abc.Mapping, abc.MutableMapping)


def _union(members: tuple[Any, ...]) -> _Type | None:
    kinds = [kind for member in members if (kind := _compile(member)) is not None]
    if len(kinds) < len(members):
        return None
    containers = [kind for kind in kinds if kind.words not in ("None", "int", "float", "str")]
    return _Type(
        " | ".join(kind.words for kind in kinds),
        lambda value: any(kind.accepts(value) for kind in kinds),
        # The place of the trouble is clear only where one member can be meant.
        containers[0].part if len(containers) == 1 else lambda key: None,
    )


def _literal(values: tuple[Any, ...]) -> _Type:
    allowed = {(type(value), value) for value in values}
    return _Type(
        "one of " + ", ".join(map(repr, values)),
        lambda value: (
            isinstance(value, str | int | bool | None) and (type(value), value) in allowed
        ),
    )


def _list(name: str, arguments: tuple[Any, ...]) -> _Type:
    inner = _compile(arguments[0]) if arguments else None
    if inner is None:
        return _Type(name, lambda value: isinstance(value, _LISTS))
    return _Type(
        f"{name}[{inner.words}]",
        lambda value: isinstance(value, _LISTS) and all(map(inner.accepts, value)),
        lambda key: inner,
    )


def _fixed_tuple(arguments: tuple[Any, ...]) -> _Type:
    kinds = [_compile(argument) for argument in arguments]
    return _Type(
        f"tuple[{', '.join(kind.words if kind else 'Any' for kind in kinds)}]",
        lambda value: (
            isinstance(value, list | tuple)
            and len(value) == len(kinds)
            and all(
                kind is None or kind.accepts(item) for kind, item in zip(kinds, value, strict=True)
            )
        ),
        lambda key: kinds[key] if isinstance(key, int) and key < len(kinds) else None,
    )


def _map(arguments: tuple[Any, ...]) -> _Type:
    inner = _compile(arguments[1]) if len(arguments) == 2 else None
    if inner is None:
        return _Type("dict", lambda value: isinstance(value, Mapping))
    return _Type(
        f"dict[…, {inner.words}]",
        lambda value: isinstance(value, Mapping) and all(map(inner.accepts, value.values())),
        lambda key: inner,
    )


def _typed_dict(annotation: Any) -> _Type:
    try:
        hints = typing.get_type_hints(annotation, include_extras=True)
    except Exception:
        hints = {}  # boundary, as in `_annotation`
    kinds = {}
    required = set(annotation.__required_keys__)
    for key, hint in hints.items():
        marker = typing.get_origin(hint)
        if marker in (typing.Required, typing.NotRequired):
            # Python misses the marks where annotations are kept as text.
            (required.add if marker is typing.Required else required.discard)(key)
            hint = typing.get_args(hint)[0]
        if (kind := _compile(hint)) is not None:
            kinds[key] = kind
    return _Type(
        annotation.__name__,
        lambda value: (
            isinstance(value, Mapping)
            and required <= value.keys()
            and all(kinds[key].accepts(value[key]) for key in kinds.keys() & value.keys())
        ),
        lambda key: kinds.get(key),
    )
