"""Every call is refused without a log-in, and without its permission."""

import pytest
from django.test import Client

from queueadmin.api import urls
from queueadmin.models import Alert, Worker
from queueadmin.states import JobState
from tests.queueadmin.rows import make_dead_letter, make_group, make_job

from .conftest import EVERYTHING, ROOT

CALLS = [
    pytest.param(call, method.upper(), verb, id=f"{method.upper()} {call.pattern}")
    for call in urls.calls
    for method, action in call.callback.actions.items()
    if method != "head" and (verb := call.callback.cls.verbs[action])
]


@pytest.fixture
def path_of(db):
    letter = make_dead_letter()
    worker = Worker.objects.create(
        id="web1:1", host="web1", pid=1, threads=8, started_at=letter.died_at,
        seen_at=letter.died_at,
    )  # fmt: skip
    values = {
        "dead-letters": {"id": letter.pk},
        "failure-groups": {"id": make_group().pk},
        "jobs": {"id": make_job(state=JobState.COMPLETED).pk},
        "workers": {"id": worker.pk},
        "queues": {"queue": "whatsapp-messages"},
        "operations": {"id": 1},
        "schedules": {"name": "recovery"},
        "alerts": {"id": Alert.objects.create(kind="stuck", text="x", opened_at=letter.died_at).pk},
    }

    def path(call):
        template, names = call.pattern.regex, call.pattern.regex.groupindex
        text = str(call.pattern)
        kind = text.lstrip("^").split("/")[0]
        for name in names:
            start = text.index(f"(?P<{name}>")
            depth, end = 0, start
            while True:  # the group's end, with what it contains
                depth += {"(": 1, ")": -1}.get(text[end], 0)
                end += 1
                if depth == 0:
                    break
            text = text[:start] + str(values[kind][name]) + text[end:]
        found = text.removeprefix("^").removesuffix("\\Z")
        assert template.match(found)
        return found

    return path


@pytest.mark.parametrize(("call", "method", "verb"), CALLS)
class TestEveryCall:
    def test_refuses_whoever_is_not_logged_in(self, call, method, verb, path_of):
        answer = Client().generic(method, ROOT + path_of(call), "{}", "application/json")

        assert answer.status_code == 401
        assert answer["Content-Type"] == "application/problem+json"
        assert answer["WWW-Authenticate"] == "Token"

    def test_refuses_a_user_who_may_do_everything_else(
        self, call, method, verb, path_of, make_program
    ):
        program = make_program(*(set(EVERYTHING) - {verb}))
        answer = program(method, path_of(call), {})

        assert answer.status_code == 403
        assert f"queueadmin.{verb}" in answer.json()["detail"]

    def test_lets_its_permission_alone_pass(
        self, call, method, verb, path_of, make_program, broker
    ):
        answer = make_program(verb)(method, path_of(call), {})

        assert answer.status_code not in (401, 403)

    def test_refuses_an_account_that_was_closed(self, call, method, verb, path_of, make_program):
        program = make_program(verb)
        program.user.is_active = False
        program.user.save()

        assert program(method, path_of(call), {}).status_code == 401


def test_a_session_needs_its_csrf_token_to_change_anything(make_program):
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_program("view_queue", "pause_queue").user)
    path = ROOT + "queues/whatsapp-messages/"

    assert client.get(path).status_code == 200
    answer = client.post(path + "pause/", "{}", "application/json")
    assert answer.status_code == 403
    assert "CSRF" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("given", "lacking"),
    [({"priority": "high"}, "assign_deadletter"), ({"note": "x"}, "annotate_deadletter")],
)
def test_each_field_of_a_triage_asks_for_its_permission(make_program, given, lacking):
    letter = make_dead_letter()
    program = make_program("view_deadletter")
    answer = program("PATCH", f"dead-letters/{letter.pk}/", given)

    assert answer.status_code == 403
    assert lacking in answer.json()["detail"]


def test_to_run_a_dead_job_takes_the_permission_to_requeue(make_program):
    letter = make_dead_letter()
    answer = make_program("retry_job")("POST", f"jobs/{letter.job_id}/retry/")

    assert answer.status_code == 403
    assert "requeue_deadletter" in answer.json()["detail"]
