"""Looks at everything queueadmin stands on, and says what to do about what is wrong."""

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from dramatiq import get_broker

from . import clock, conf, overview, recurring, scheduling, workers
from .brokers.transport import BrokerUnavailable
from .conf import settings
from .exceptions import ConfigurationError
from .models import Alert
from .states import AlertKind

# More than this is no measuring error; schedules and leases of hosts drift apart.
_SKEW = timedelta(seconds=1)
_START_SCHEDULER = "Start one: manage.py runscheduler."
#: Our own actors that nothing but a schedule runs, and how often they should run.
_RECURRING = {"queueadmin.recover": "every 5 minutes", "queueadmin.apply_retention": "every hour"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `advice` is empty where all is well."""

    check: str
    found: str
    advice: str = ""

    @property
    def is_good(self) -> bool:
        """Whether there is nothing to do."""
        return not self.advice


def examine() -> list[Finding]:
    """Run every check. Those that read the ledger are left out where it cannot be read."""
    findings = [_settings(), _broker(), *database()]
    if all(finding.is_good for finding in findings if finding.check == "database"):
        for check in (_clock, _workers, _versions, _scheduler, _alerts):
            findings.append(check())
    return [*findings, _schedules()]


def _settings() -> Finding:
    from django.conf import settings as django_settings

    if found := conf.problems(getattr(django_settings, "QUEUEADMIN", {})):
        return Finding("settings", " ".join(found), "Correct the setting QUEUEADMIN.")
    return Finding("settings", f"{len(settings.QUEUES)} queues with a policy")


def _broker() -> Finding:
    broker = get_broker()
    transport = getattr(broker, "transport", None)
    if transport is None:
        return Finding(
            "broker",
            f"{type(broker).__name__} does not write the ledger",
            "Name a broker of queueadmin.brokers in DRAMATIQ_BROKER.",
        )
    try:
        transport.size("default")
    except BrokerUnavailable as error:
        advice = "Start the broker's server, or correct its address; the ledger keeps all jobs."
        return Finding("broker", str(error), advice)
    return Finding("broker", f"{type(broker).__name__} answers")


def database() -> list[Finding]:
    """Whether the database answers and has every migration of the code that runs here."""
    try:
        executor = MigrationExecutor(connection)
        missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as error:
        return [Finding("database", str(error), "Start the database, or correct its address.")]
    if missing:
        names = ", ".join(f"{step.app_label}.{step.name}" for step, _ in missing)
        return [Finding("database", f"not migrated: {names}", "Run manage.py migrate.")]
    return [Finding("database", f"{connection.vendor} answers, all migrations are applied")]


def _clock() -> Finding:
    skew = clock.synchronise()
    found = f"{skew / timedelta(milliseconds=1):+.0f} ms off the database's clock"
    if abs(skew) > _SKEW:
        return Finding("clock", found, "Let this host, or the database's, follow a time server.")
    return Finding("clock", found)


def _workers() -> Finding:
    listening = {queue for worker in workers.alive() for queue in worker.queues}
    # A delay queue's name, or none at all, never hides a queue that has work.
    idle = [
        row.queue
        for row in overview.queues()
        if row.waiting and row.queue not in listening and not row.is_paused
    ]
    number = workers.alive().count()
    if not number:
        return Finding("workers", "none is alive", "Start some: manage.py rundramatiq.")
    if idle:
        found = f"{number} alive, none of them for {', '.join(idle)}"
        return Finding("workers", found, "Start workers for these queues: rundramatiq --queues.")
    return Finding("workers", f"{number} alive")


def _versions() -> Finding:
    releases = sorted(set(workers.alive().values_list("release", flat=True)) - {""})
    if len(releases) > 1:
        found = f"workers run {', '.join(releases)}"
        return Finding("versions", found, "Finish the deployment: restart the older workers.")
    if settings.RELEASE and releases and releases != [settings.RELEASE]:
        found = f"workers run {releases[0]}, this is {settings.RELEASE}"
        return Finding("versions", found, "Restart the workers with the code that is here.")
    return Finding("versions", releases[0] if releases else "no release is set")


def _schedules() -> Finding:
    try:
        scheduling.require_valid(settings.SCHEDULES)
    except ConfigurationError as error:
        return Finding("schedules", str(error), "Correct QUEUEADMIN['SCHEDULES'].")
    missing = _RECURRING.keys() - {schedule.actor for schedule in settings.SCHEDULES.values()}
    if missing:
        wanted = [f"{actor} {often}" for actor, often in _RECURRING.items() if actor in missing]
        return Finding(
            "schedules",
            f"none runs {' or '.join(actor for actor in _RECURRING if actor in missing)}",
            f"Add to QUEUEADMIN['SCHEDULES']: {', '.join(wanted)}.",
        )
    return Finding("schedules", f"{len(settings.SCHEDULES)} are valid")


def _scheduler() -> Finding:
    schedules = recurring.listed()
    late = [each.name for each in schedules if each.is_late]
    if schedules and all(each.next_at is None for each in schedules):
        return Finding("scheduler", "none has ever run here", _START_SCHEDULER)
    if late:
        return Finding("scheduler", f"overdue: {', '.join(late)}", _START_SCHEDULER)
    return Finding("scheduler", "no schedule is overdue")


def _alerts() -> Finding:
    kinds = Counter(Alert.objects.filter(closed_at=None).values_list("kind", flat=True))
    if not kinds:
        return Finding("alerts", "none is open")
    found = ", ".join(f"{AlertKind(kind).label} ({count})" for kind, count in kinds.most_common())
    return Finding("alerts", found, "Open Alerts in the console; each says what the matter is.")
