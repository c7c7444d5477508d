"""The one settings dict, QUEUEADMIN, typed, with defaults and checked names."""

import re
from base64 import urlsafe_b64decode
from difflib import get_close_matches
from ipaddress import ip_network
from typing import Any, TypedDict
from urllib.parse import urlsplit

from django.conf import settings as django_settings

from .exceptions import ConfigurationError
from .policies import Policy
from .schedules import Schedule

_KEY_BYTES = 32
_SECRETS = ("ENCRYPTION_KEYS", "METRICS_TOKEN", "ALERT_WEBHOOK_SECRET")
# Shorter ones can be guessed.
_LEAST_TOKEN = 16


class QueueadminSettings(TypedDict, total=False):
    """Everything the setting QUEUEADMIN may contain."""

    #: Policy of each queue; a queue without one behaves like plain Dramatiq, in the ledger.
    QUEUES: dict[str, Policy]
    #: What recurs, by name; `manage.py runscheduler` enqueues it.
    SCHEDULES: dict[str, Schedule]
    #: Dotted path of the host's `queueadmin.resolver.Resolver` subclass.
    RESOLVER: str
    #: Version of the deployed code, stamped on attempts ("first seen in").
    RELEASE: str
    #: Largest encoded message in bytes that may be enqueued.
    MAX_MESSAGE_BYTES: int
    #: Rows one bulk action may touch.
    BULK_LIMIT: int
    #: Whether PostgreSQL may keep the plans of a few statements per connection, without a pooler.
    PREPARED_STATEMENTS: bool
    #: Milliseconds without heartbeat after which a worker process counts as dead.
    HEARTBEAT_TIMEOUT_MS: int
    #: Seconds a job may go on after its time limit interrupted it, before its process is ended.
    HARD_LIMIT_GRACE: int
    #: Seconds a message for an unknown actor is parked before it becomes a dead letter.
    UNKNOWN_ACTOR_GRACE: int
    #: Hours a completed job stays in the ledger.
    KEEP_COMPLETED_HOURS: int
    #: Hours a cancelled job, or a dead one after its dead letter was closed, stays.
    KEEP_CLOSED_HOURS: int
    #: Names of payload fields that are masked wherever people look.
    SENSITIVE_FIELDS: list[str]
    #: Requests of the REST API that one user may make, such as "1200/minute".
    API_RATE: str
    #: Keys for payloads of actors that declare `sensitive` fields; the first encrypts, all open.
    ENCRYPTION_KEYS: list[str]
    #: Who sends it as a bearer token may read the metrics; empty: nobody by token.
    METRICS_TOKEN: str
    #: Addresses and networks that may read the metrics without it.
    METRICS_ADDRESSES: list[str]
    #: Who gets alerts by e-mail.
    ALERT_EMAILS: list[str]
    #: Addresses that get alerts by a signed POST.
    ALERT_WEBHOOKS: list[str]
    #: Key of the signature.
    ALERT_WEBHOOK_SECRET: str
    #: Networks that are not public and may be called all the same.
    ALERT_WEBHOOK_NETWORKS: list[str]
    #: Dead letters waiting for a decision, overall and of one queue; 0 turns a limit off.
    ALERT_DEAD_LETTERS: int
    ALERT_QUEUE_DEAD_LETTERS: int
    #: Minutes the oldest job of a queue that is not paused may wait; 0: for ever.
    ALERT_WAITING_MINUTES: int
    #: Minutes a queue may be paused; 0: for ever.
    ALERT_PAUSED_MINUTES: int
    #: Seconds workers, broker, database or scheduler must be away before it is an alert.
    ALERT_OUTAGE_SECONDS: int


DEFAULTS: QueueadminSettings = {
    "QUEUES": {},
    "SCHEDULES": {},
    "RESOLVER": "queueadmin.resolver.Resolver",
    "RELEASE": "",
    "MAX_MESSAGE_BYTES": 1_000_000,
    "BULK_LIMIT": 10_000,
    "PREPARED_STATEMENTS": True,
    "HEARTBEAT_TIMEOUT_MS": 10_000,
    "HARD_LIMIT_GRACE": 30,
    "UNKNOWN_ACTOR_GRACE": 600,
    "KEEP_COMPLETED_HOURS": 24,
    "KEEP_CLOSED_HOURS": 7 * 24,
    "SENSITIVE_FIELDS": ["password", "secret", "token", "api_key", "authorization", "pin"],
    "API_RATE": "1200/minute",
    "ENCRYPTION_KEYS": [],
    "METRICS_TOKEN": "",
    "METRICS_ADDRESSES": [],
    "ALERT_EMAILS": [],
    "ALERT_WEBHOOKS": [],
    "ALERT_WEBHOOK_SECRET": "",
    "ALERT_WEBHOOK_NETWORKS": [],
    "ALERT_DEAD_LETTERS": 100,
    "ALERT_QUEUE_DEAD_LETTERS": 25,
    "ALERT_WAITING_MINUTES": 15,
    "ALERT_PAUSED_MINUTES": 60,
    "ALERT_OUTAGE_SECONDS": 60,
}


class Settings:
    """Read QUEUEADMIN afresh at each access, so that `override_settings` is respected."""

    QUEUES: dict[str, Policy]
    SCHEDULES: dict[str, Schedule]
    RESOLVER: str
    RELEASE: str
    MAX_MESSAGE_BYTES: int
    BULK_LIMIT: int
    PREPARED_STATEMENTS: bool
    HEARTBEAT_TIMEOUT_MS: int
    HARD_LIMIT_GRACE: int
    UNKNOWN_ACTOR_GRACE: int
    KEEP_COMPLETED_HOURS: int
    KEEP_CLOSED_HOURS: int
    SENSITIVE_FIELDS: list[str]
    API_RATE: str
    ENCRYPTION_KEYS: list[str]
    METRICS_TOKEN: str
    METRICS_ADDRESSES: list[str]
    ALERT_EMAILS: list[str]
    ALERT_WEBHOOKS: list[str]
    ALERT_WEBHOOK_SECRET: str
    ALERT_WEBHOOK_NETWORKS: list[str]
    ALERT_DEAD_LETTERS: int
    ALERT_QUEUE_DEAD_LETTERS: int
    ALERT_WAITING_MINUTES: int
    ALERT_PAUSED_MINUTES: int
    ALERT_OUTAGE_SECONDS: int

    def __getattr__(self, name: str) -> Any:
        if name not in DEFAULTS:
            raise AttributeError(name)
        return _configured().get(name, DEFAULTS[name])  # type: ignore[literal-required]

    def policy(self, queue: str) -> Policy | None:
        """Return the queue's policy, or None where it has none."""
        # Asked several times for each job, so not by way of `__getattr__`.
        found: Policy | None = _configured().get("QUEUES", {}).get(queue)
        return found


def _configured() -> dict[str, Any]:
    """Return the setting QUEUEADMIN.

    Django keeps what was asked for in the object's own `__dict__`, and forgets it when a setting
    is overridden. Whoever asks it there saves Django's `__getattribute__`, which is Python and was
    a twentieth of what a job without work costs its thread.
    """
    try:
        found: dict[str, Any] = object.__getattribute__(django_settings, "__dict__")["QUEUEADMIN"]
    except KeyError:
        found = getattr(django_settings, "QUEUEADMIN", {})
    return found


def problems(configured: dict[str, Any]) -> list[str]:
    """Return what is wrong with a QUEUEADMIN dict, one sentence each."""
    found = []
    for name, value in configured.items():
        if name not in DEFAULTS:
            near = get_close_matches(name, DEFAULTS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(DEFAULTS)}."
            found.append(f"QUEUEADMIN has no setting {name!r}; {hint}")
        elif not isinstance(value, type(DEFAULTS[name])):  # type: ignore[literal-required]
            expected = type(DEFAULTS[name]).__name__  # type: ignore[literal-required]
            # A key must not be quoted.
            given = type(value).__name__ if name in _SECRETS else repr(value)
            found.append(f"QUEUEADMIN[{name!r}] must be of type {expected}, not {given}.")
    queues = configured.get("QUEUES")
    if isinstance(queues, dict):
        found += [
            f"QUEUEADMIN['QUEUES'][{queue!r}] must be a queueadmin.policies.Policy, not {value!r}."
            for queue, value in queues.items()
            if not isinstance(value, Policy)
        ]
    schedules = configured.get("SCHEDULES")
    if isinstance(schedules, dict):
        found += [
            f"QUEUEADMIN['SCHEDULES'][{name!r}] must be a queueadmin.schedules.Schedule, not "
            f"{value!r}."
            for name, value in schedules.items()
            if not isinstance(value, Schedule)
        ]
    rate = configured.get("API_RATE")
    if isinstance(rate, str) and not re.fullmatch(r"[1-9][0-9]*/(second|minute|hour|day)", rate):
        found.append(
            f"QUEUEADMIN['API_RATE'] must be a number per second, minute, hour or day, such as "
            f"'1200/minute', not {rate!r}."
        )
    keys = configured.get("ENCRYPTION_KEYS")
    if isinstance(keys, list):
        found += [
            f"QUEUEADMIN['ENCRYPTION_KEYS'][{position}] is no key: it must be 32 random bytes in "
            "URL-safe base64, as cryptography.fernet.Fernet.generate_key() makes them."
            for position, key in enumerate(keys)
            if not _is_key(key)
        ]
    for name in ("METRICS_TOKEN", "ALERT_WEBHOOK_SECRET"):
        token = configured.get(name)
        if isinstance(token, str) and 0 < len(token) < _LEAST_TOKEN:
            found.append(f"QUEUEADMIN[{name!r}] must have at least {_LEAST_TOKEN} characters.")
    for name in ("METRICS_ADDRESSES", "ALERT_WEBHOOK_NETWORKS"):
        addresses = configured.get(name)
        if isinstance(addresses, list):
            found += [
                f"QUEUEADMIN[{name!r}] has {address!r}, which is no address or network: {why}."
                for address in addresses
                if (why := _problem_with(address))
            ]
    return found + _problems_of_alerts(configured)


def _problems_of_alerts(configured: dict[str, Any]) -> list[str]:
    found = [
        f"QUEUEADMIN[{name!r}] must not be negative; 0 turns it off."
        for name, value in configured.items()
        if name.startswith("ALERT_") and isinstance(value, int) and value < 0
    ]
    urls = configured.get("ALERT_WEBHOOKS")
    if isinstance(urls, list):
        found += [
            f"QUEUEADMIN['ALERT_WEBHOOKS'] has {url!r}; it must begin with https:// or http://, "
            "and contain no log-in."
            for url in urls
            if not is_url(url)
        ]
        if urls and not configured.get("ALERT_WEBHOOK_SECRET"):
            found.append("QUEUEADMIN['ALERT_WEBHOOKS'] needs ALERT_WEBHOOK_SECRET, to sign with.")
    return found


def is_url(text: object) -> bool:
    """Return whether text is an address that a webhook may have."""
    try:
        parts = urlsplit(str(text))
        port = parts.port
    except ValueError:
        return False
    is_web = parts.scheme in ("http", "https") and bool(parts.hostname)
    return is_web and port != 0 and parts.username is None and parts.password is None


def _problem_with(network: object) -> str:
    """Return why text is no address or network, nothing when it is one."""
    try:
        ip_network(str(network))
    except ValueError as error:
        return str(error)
    return ""


def _is_key(key: object) -> bool:
    try:
        return isinstance(key, str) and len(urlsafe_b64decode(key)) == _KEY_BYTES
    except ValueError:
        return False


def require_valid() -> None:
    """Raise ConfigurationError naming every problem of the setting QUEUEADMIN."""
    if found := problems(getattr(django_settings, "QUEUEADMIN", {})):
        raise ConfigurationError(" ".join(found))


settings = Settings()
