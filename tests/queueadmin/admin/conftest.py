import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from tests.queueadmin.rows import TRIAGE, make_user


@pytest.fixture
def anna(db: None) -> Client:
    """Staff who may triage."""
    return _logged_in("anna", *TRIAGE)


@pytest.fixture
def viewer(db: None) -> Client:
    """Staff who may look and nothing else."""
    return _logged_in(
        "viewer",
        "view_job",
        "view_attempt",
        "view_deadletter",
        "view_auditentry",
        "view_recoveryrun",
        "view_failuregroup",
        "view_requeueoperation",
        "view_queue",
        "view_schedulecontrol",
        "view_worker",
        "view_alert",
    )


@pytest.fixture
def lead(db: None) -> Client:
    """Staff who may do everything."""
    every = Permission.objects.filter(content_type__app_label="queueadmin")
    return _logged_in("lead", *every.values_list("codename", flat=True))


@pytest.fixture
def stranger(db: None) -> Client:
    """Staff of another department."""
    return _logged_in("stranger")


def _logged_in(name: str, *permissions: str) -> Client:
    client = Client()
    client.force_login(make_user(name, *permissions))
    return client
