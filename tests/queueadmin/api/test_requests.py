"""What is no proper request is answered in one shape, and costs nothing."""

import json

import pytest
from django.test import Client

from tests.queueadmin.rows import make_dead_letter

from .conftest import ROOT


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'"text"', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"reason": NaN}', "application/json", 400),
        (b'{"reason": "\xff"}', "application/json", 400),
        (b'{"reason": "\\ud800"}', "application/json", 400),
        (b'{"reason": "a\\u0000b"}', "application/json", 400),
        (b"reason=x", "application/x-www-form-urlencoded", 415),
        (b'{"reason": "' + b"x" * 2_100_000 + b'"}', "application/json", 413),
        (b'{"reason": "' + b"x" * 3_000_000 + b'"}', "application/json", 413),
    ],
)
def test_a_body_that_is_no_proper_json_is_refused(call, body, kind, status):
    answer = Client().post(
        ROOT + "queues/whatsapp-messages/pause/",
        body,
        kind,
        headers={"Authorization": f"Token {call._token}"},
    )

    assert answer.status_code == status
    problem = json.loads(answer.content)
    assert answer["Content-Type"] == "application/problem+json"
    assert {"type", "title", "status", "detail"} <= problem.keys()
    assert problem["status"] == status


@pytest.mark.parametrize("path", ["nothing/here/", "dead-letters/%0A/requeue/", "%00"])
def test_an_address_that_does_not_exist_is_answered_in_the_same_shape(call, path):
    answer = call("GET", path)

    assert answer.status_code == 404
    assert answer["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("key", ["9" * 18, "9" * 19, "0", "-1", "1e3"])
def test_a_key_that_no_row_can_have_is_not_found(call, key):
    assert call("GET", f"dead-letters/{key}/").status_code == 404


def test_a_method_that_a_call_does_not_know_is_refused(call):
    assert call("POST", "statistics/").status_code == 405


def test_more_requests_than_the_rate_are_refused(call, settings):
    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "API_RATE": "2/hour"}
    answers = [call("GET", "queues/") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[2]["Retry-After"]) > 0


def test_answers_are_kept_by_no_cache(call):
    assert "no-store" in call("GET", "queues/")["Cache-Control"]


def test_hostile_texts_come_back_as_they_are(call):
    text = '<script>alert(1)</script>\u202e=cmd|"/c calc"!A1'
    letter = make_dead_letter(error_message=text)

    assert call("GET", f"dead-letters/{letter.pk}/").json()["error_message"] == text
