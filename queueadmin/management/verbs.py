"""The verbs of the command `queueadmin`, and what each of them takes."""

from typing import Any

from django.core.management.base import CommandParser

from queueadmin.management import arguments
from queueadmin.states import FINISHED, DeadLetterStatus, JobState


class _Verbs:
    """Adds sub-commands; each takes what all of its kind take."""

    def __init__(self, parser: CommandParser) -> None:
        self._verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def shows(self, name: str, words: str) -> CommandParser:
        """Add one that only reads."""
        sub: CommandParser = self._verbs.add_parser(name, help=words, description=words)
        sub.add_argument("--format", choices=("table", "json"), default="table")
        return sub

    def acts(self, name: str, words: str) -> CommandParser:
        """Add one that leaves a trace in the audit."""
        sub = self.shows(name, words)
        sub.add_argument("--by", metavar="USER", help="act as this user; else as a program")
        sub.add_argument("--reason", default="", help="why; kept in the audit")
        return sub

    def changes(self, name: str, words: str) -> CommandParser:
        """Add one that can say what it would do."""
        sub = self.acts(name, words)
        sub.add_argument("--dry-run", action="store_true", help="only say what would be done")
        return sub

    def changes_many(self, name: str, words: str, *, key: Any = str) -> CommandParser:
        """Add one that takes any number of ids."""
        sub = self.changes(name, words)
        sub.add_argument("ids", nargs="*", metavar="ID", type=key)
        return sub

    def changes_letters(self, name: str, words: str) -> CommandParser:
        """Add one for dead letters, by their ids or by a filter."""
        sub = self.changes_many(name, words, key=arguments.key)
        sub.add_argument("--queue", help="every pending one of this queue")
        sub.add_argument("--actor", help="every pending one of this actor")
        sub.add_argument("--error", help="every pending one with this error class")
        return sub


def add(parser: CommandParser) -> None:
    """Add every verb to the parser of the command."""
    verbs = _Verbs(parser)
    verbs.shows("status", "Show what each queue has to do.")
    verbs.shows("workers", "Show the worker processes that are alive.")
    _add_jobs(verbs)
    _add_dead_letters(verbs)
    _add_queues(verbs)
    _add_servers(verbs)
    sub = verbs.changes("schedule", "List schedules, or enqueue the job of one now.")
    sub.add_argument("--run", metavar="NAME", help="enqueue this one's job now")
    _add_watching(verbs)


def _add_jobs(verbs: _Verbs) -> None:
    sub = verbs.shows("jobs", "List jobs, newest first.")
    sub.add_argument("--state", choices=[*JobState.values, "failed"], default="")
    sub.add_argument("--queue", default="")
    sub.add_argument("--actor", default="")
    sub.add_argument("--limit", type=arguments.limit, default=50)
    verbs.shows("job", "Show a job and its attempts.").add_argument("id")
    verbs.changes_many("cancel", "Cancel jobs.")
    verbs.changes_many("retry", "Run scheduled and retrying jobs now.")
    sub = verbs.changes_many("reschedule", "Make jobs due at another time.")
    sub.add_argument(
        "--at", required=True, type=arguments.moment, help="2030-01-31T08:00, or with zone"
    )
    sub = verbs.changes(
        "settle-effect", "Say whether something that a job left unknown took place."
    )
    sub.add_argument("id", metavar="JOB")
    sub.add_argument("name")
    answer = sub.add_mutually_exclusive_group(required=True)
    answer.add_argument("--done", dest="was_done", action="store_true", help="it took place")
    answer.add_argument("--undone", dest="was_done", action="store_false", help="it did not")


def _add_dead_letters(verbs: _Verbs) -> None:
    sub = verbs.shows("deadletters", "List dead letters, newest first.")
    sub.add_argument("--status", choices=DeadLetterStatus.values)
    sub.add_argument("--queue")
    sub.add_argument("--limit", type=arguments.limit, default=50)
    sub = verbs.changes_letters("requeue", "Give dead letters a new round of attempts.")
    sub.add_argument(
        "--confirm", metavar="ACTOR", default="",
        help="for one dead letter of an actor that is not safe to repeat: the actor's name",
    )  # fmt: skip
    verbs.changes_letters("discard", "Mark dead letters permanently failed.")


def _add_queues(verbs: _Verbs) -> None:
    sub = verbs.changes("pause", "Stop new starts of a queue's jobs.")
    sub.add_argument("queue")
    sub.add_argument("--minutes", type=int, help="go on by itself after so long")
    verbs.changes("resume", "Let a queue's jobs start again.").add_argument("queue")
    sub = verbs.changes("clean", "Remove jobs that ended long ago.")
    sub.add_argument(
        "states", nargs="+", choices=[state.value for state in FINISHED], metavar="STATE"
    )
    sub.add_argument("--queue", help="only of this queue")
    sub.add_argument(
        "--older-than-hours",
        required=True,
        type=arguments.hours,
        help="since they ended, such as 24",
    )


def _add_servers(verbs: _Verbs) -> None:
    verbs.changes("recover", "Compare ledger and broker, and repair.")
    sub = verbs.changes(
        "migrate-broker",
        "Move all open jobs here from another message server. Start it before the first "
        "process works on the new server; it ends when no worker of the old one is alive.",
    )
    sub.add_argument("--from", dest="source", required=True, metavar="URL")
    sub.add_argument("--from-namespace", default="", help="prefix of the names there")
    sub.add_argument(
        "--wait", type=int, default=600, metavar="SECONDS",
        help="for workers of the old server to end; then exit with 3, and call again",
    )  # fmt: skip
    sub = verbs.changes(
        "adopt-backlog",
        "Take what plain Dramatiq has left on a Redis or a RabbitMQ into the ledger. Stop its workers first.",
    )
    sub.add_argument("--from", dest="url", required=True, metavar="URL")
    sub.add_argument("--from-namespace", dest="namespace", default="dramatiq")
    sub = verbs.changes(
        "hand-back",
        "Make messages of plain Dramatiq of all open jobs. Stop all of our processes first.",
    )
    sub.add_argument("--to", dest="url", required=True, metavar="URL")
    sub.add_argument("--to-namespace", dest="namespace", default="dramatiq")


def _add_watching(verbs: _Verbs) -> None:
    sub = verbs.shows("alerts", "List alerts, the open ones first.")
    sub.add_argument("--limit", type=arguments.limit, default=50)
    sub = verbs.acts("acknowledge", "Say that somebody is at an open alert.")
    sub.add_argument("id", type=arguments.key, metavar="ID")
    verbs.shows(
        "watch",
        "Look for trouble until SIGTERM or SIGINT, also while no worker lives and no "
        "database answers; `runscheduler` does the same beside its work.",
    )
    verbs.shows("doctor", "Examine settings, broker, database, clock, workers and schedules.")
