"""What an actor's author says to whoever meets its failure: what to do, and whether to repeat.

Declared beside the code it is about, by the actor's options:

    @dramatiq.actor(runbook="Ask the bank first.", replay_safe=False)
    def transfer(...): ...

An actor that this process does not know has said nothing.
"""

from collections.abc import Iterable

from . import payloads


def runbook_of(actor_name: str) -> str:
    """Return what its author says is to be done; empty where nothing is said."""
    actor = payloads.known_actors().get(actor_name)
    return str(actor.options.get("runbook") or "") if actor is not None else ""


def is_safe(actor_name: str) -> bool:
    """Return whether its jobs may be repeated without a person who confirms each."""
    actor = payloads.known_actors().get(actor_name)
    return actor is None or actor.options.get("replay_safe", True) is not False


def unsafe_actors() -> frozenset[str]:
    """Return the actors whose jobs must not be repeated without a person who confirms each."""
    return frozenset(name for name in payloads.known_actors() if not is_safe(name))


def problems() -> Iterable[str]:
    """Return what is wrong with what actors declare, one sentence each."""
    for name, actor in payloads.known_actors().items():
        for option, kind in (("runbook", str), ("replay_safe", bool)):
            value = actor.options.get(option)
            if value is not None and not isinstance(value, kind):
                yield f"{option} of the actor {name} must be {kind.__name__}, not {value!r:.100}."
