"""System checks with stable ids: what is wrong in the settings, and what would be right."""

from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from . import conf, encryption, payloads, runbooks


@register(Tags.compatibility)
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """E001: the setting QUEUEADMIN has an unknown name or a value of the wrong type."""
    return [
        Error(problem, id="queueadmin.E001")
        for problem in conf.problems(getattr(django_settings, "QUEUEADMIN", {}))
    ]


@register(Tags.compatibility)
def check_app_order(**kwargs: Any) -> list[CheckMessage]:
    """E002: `queueadmin` must stand before `django_dramatiq`, whose rundramatiq it extends."""
    apps = [app.split(".")[0] for app in django_settings.INSTALLED_APPS]
    if "django_dramatiq" in apps and apps.index("queueadmin") > apps.index("django_dramatiq"):
        return [
            Error(
                "queueadmin stands after django_dramatiq in INSTALLED_APPS.",
                hint="Move it before django_dramatiq, so that its rundramatiq is the one that runs.",
                id="queueadmin.E002",
            )
        ]
    return []


@register(Tags.compatibility)
def check_runbooks(**kwargs: Any) -> list[CheckMessage]:
    """E004: an actor declares a runbook or its safety with a value of the wrong type.

    E003 is in `task_backend`: an option of tasks that no actor has.
    """
    return [Error(problem, id="queueadmin.E004") for problem in runbooks.problems()]


@register(Tags.security, deploy=True)
def check_encryption(**kwargs: Any) -> list[CheckMessage]:
    """W001: actors declare sensitive fields, and there is no key to encrypt them with."""
    names = sorted(payloads.declared(payloads.known_actors()))
    if not names or encryption.is_on():
        return []
    return [
        Warning(
            f"Payloads of {', '.join(names)} have sensitive fields and are stored as plain text.",
            hint="Set QUEUEADMIN['ENCRYPTION_KEYS'], or silence this check.",
            id="queueadmin.W001",
        )
    ]
