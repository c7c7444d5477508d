"""Registers the app's checks and duties, and finds the actors; nothing runs here."""

from django.apps import AppConfig
from django.conf import settings
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class QueueadminConfig(AppConfig):
    name = "queueadmin"
    verbose_name = _("Background jobs")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import (
            alerts,
            assignment,
            breakers,
            checks,  # noqa: F401  # registers the system checks
            failuregroups,
            operations,
            statistics,
            triage,
        )
        from .dispatcher import Dispatcher

        # In every process, as the admin's: a page that edits arguments, a call that enqueues
        # and whatever masks payloads must know what the actors declare.
        autodiscover_modules(*getattr(settings, "DRAMATIQ_AUTODISCOVER_MODULES", ["tasks"]))

        for duty in (
            (1.0, breakers.tend),
            (0.5, operations.carry_on),
            (1.0, assignment.apply),
            (30.0, failuregroups.wake),
            (30.0, triage.wake_due),
            (30.0, statistics.fold),
            (10.0, alerts.tend),
        ):
            if duty not in Dispatcher.duties:
                Dispatcher.duties.append(duty)
        self._prepare_tasks()

    def _prepare_tasks(self) -> None:
        """Learn the queues of Django's Tasks framework, where TASKS names a backend of ours."""
        configured = getattr(settings, "TASKS", None) or {}
        theirs = ("django.tasks.", "django_tasks.")
        if all(str(one.get("BACKEND", "")).startswith(theirs) for one in configured.values()):
            return
        from . import task_backend

        task_backend.prepare()
