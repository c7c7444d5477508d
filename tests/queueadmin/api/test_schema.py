"""The OpenAPI document is true: every call answers as it says, whatever it is sent."""

import json
from pathlib import Path

import hypothesis
import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from rest_framework.authtoken.models import Token
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from config.wsgi import application
from queueadmin.api.schema import document
from queueadmin.models import Alert, Worker
from queueadmin.states import JobState
from tests import api_reference
from tests.queueadmin.rows import make_dead_letter, make_group, make_job, make_user

from .conftest import EVERYTHING, ROOT

API = schemathesis.openapi.from_dict(document(ROOT.rstrip("/")))
API.app = application
OPERATIONS = {found.ok().label: found.ok() for found in API.get_all_operations()}
ROOT_FOLDER = Path(__file__).resolve().parents[3]


def _cases():
    for label, operation in sorted(OPERATIONS.items()):
        for mode in GenerationMode:
            for is_there in (True, False):
                # What can be wrong: in the path only where the path is not that of a row.
                wrong = [operation.query, operation.body]
                if not is_there:
                    wrong.append(operation.path_parameters)
                if mode == GenerationMode.POSITIVE or any(wrong):
                    there = "there" if is_there else "anything"
                    yield pytest.param(label, mode, is_there, id=f"{label} {mode}-{there}")


# Two rules that no schema can say: one of several fields must be given, and what is text for
# a number is read as one.
LEFT_OUT = [
    CHECKS.get_one(f"{name}_data_{rule}")
    for name, rule in (("negative", "rejection"), ("positive", "acceptance"))
]


@pytest.fixture
def ids(db):
    letter = make_dead_letter()
    user = make_user("mira", "view_deadletter", "view_failuregroup")
    make_job(state=JobState.COMPLETED)
    Worker.objects.create(
        id="web1:1", host="web1", pid=1, threads=8, started_at=letter.died_at,
        seen_at=letter.died_at,
    )  # fmt: skip
    return {
        "dead-letters": letter.pk,
        "failure-groups": make_group().pk,
        "jobs": make_job().pk,
        "workers": "web1:1",
        "queues": "whatsapp-messages",
        "operations": 1,
        "schedules": "recovery",
        "alerts": Alert.objects.create(kind="stuck", text="x", opened_at=letter.died_at).pk,
        "user": user,
    }


@pytest.fixture
def token(db):
    # They would close the connection whose transaction the test rolls back.
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    yield Token.objects.create(user=make_user("script", *EVERYTHING)).key
    for signal in signals:
        signal.connect(close_old_connections)


@pytest.mark.parametrize(("label", "mode", "is_there"), list(_cases()))
def test_every_answer_is_as_documented(label, mode, is_there, ids, token, broker, settings):
    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "API_RATE": "1000000/second"}
    operation = OPERATIONS[label]

    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    @hypothesis.settings(
        max_examples=6,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def holds(case):
        if is_there:
            for name in case.path_parameters or {}:
                case.path_parameters[name] = ids[operation.path.split("/")[1]]
        case.call_and_validate(
            headers={"Authorization": f"Token {token}"}, excluded_checks=LEFT_OUT
        )

    holds()


def test_the_document_describes_itself_to_whoever_is_logged_in(client, call):
    answer = call("GET", "schema/")

    assert answer.status_code == 200
    assert answer.json()["servers"] == [{"url": "/api/v1"}]
    assert json.loads(json.dumps(document("/api/v1"))) == answer.json()
    assert client.get(ROOT + "schema/").status_code == 401


def test_the_page_of_the_document_needs_a_log_in_and_nothing_from_elsewhere(client, call):
    assert client.get(ROOT + "docs/").status_code == 302

    client.force_login(call.user)
    page = client.get(ROOT + "docs/").content.decode()

    assert "//" not in page.replace("<!DOCTYPE html>", "")
    assert "<style" not in page
    assert "<script>" not in page


def test_the_reference_in_the_docs_is_that_of_the_code():
    assert (ROOT_FOLDER / "docs" / "api.md").read_text() == api_reference.text()


def test_the_reference_describes_objects_inside_of_bodies():
    text = api_reference.text()

    assert "| `change` | body | Replacement |" in text
    assert "| `change.argument` (required) | body | string, at most 200 |" in text
    assert "| `rate` (required) | body | Rate or null |" in text
    assert "| `rate.window_ms` (required) | body | integer, 1 to 86,400,000 |" in text
    assert "| body | any |" not in text
