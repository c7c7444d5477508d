"""Hostile texts wherever a text can stand, on every page, in the API and in every file."""

import csv
import io
import json
from typing import Any

import dramatiq
import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from queueadmin import audit, deadletters, failuregroups, operations
from queueadmin.admin.exporting import harmless
from queueadmin.clock import now
from queueadmin.masking import storable
from queueadmin.models import AssignmentRule, DeadLetter, Queue, RecoveryRun, Worker
from tests.queueadmin.admin.hostile import HOSTILE, assert_text_only
from tests.queueadmin.rows import make_dead_letter, make_group

TEXTS = [*HOSTILE, "\ud800 half a pair \udfff", "ünïcödé \U0001f4a5", "x" * 1_000_000]
ROOT = "/admin/queueadmin/"
LISTS = (
    "overview/", "queue/", "worker/", "schedulecontrol/", "job/", "attempt/",
    "deadletter/?status=all", "failuregroup/?status=all", "requeueoperation/",
    "assignmentrule/", "recoveryrun/", "auditentry/",
)  # fmt: skip
CALLS = (
    "queues/", "jobs/", "jobs/?state=failed", "attempts/", "dead-letters/", "failure-groups/",
    "operations/", "workers/", "statistics/", "recovery/",
)  # fmt: skip


def message(text: str, number: int) -> bytes:
    """Return a message as a sender of any kind may have put it: escapes, and no valid text."""
    fields = {
        "queue_name": "q",
        "actor_name": "look",
        "args": [text],
        "kwargs": {"file": f"{text}.png", text[:50]: text},
        "options": {"note": text},
        "message_id": f"job-{number}",
        "message_timestamp": 1,
    }
    return json.dumps(fields).encode()


@pytest.fixture
def letters(lead: Client, broker: Any) -> list[DeadLetter]:
    """A dead letter per text, with the text wherever somebody else decides what stands there."""

    @dramatiq.actor(queue_name="q", actor_name="look", broker=broker)
    def look(*args: Any, **kwargs: Any) -> None: ...

    person = get_user_model().objects.get(username="lead")
    rows = []
    for number, raw in enumerate(TEXTS):
        text = storable(raw, 2_000_000)
        short, name = text[:90], f"{text[:80]}{number}"
        job = {
            "id": f"job-{number}",
            "message": message(raw, number),
            "queue": name,
            "actor": "look" if number % 2 else name,
            "subject": short,
            "worker": short,
            "error_class": short,
            "error_message": text,
            "progress_text": short,
            "result": json.dumps(raw),
        }
        letter = make_dead_letter(
            job=job,
            error_class=short,
            error_message=text,
            traceback=text,
            release=short,
            worker=short,
            fingerprint=f"f{number}",
            raw=raw.encode(errors="surrogatepass") + b"\xff\xfe",
            closing_reason=text,
        )
        group = make_group(
            fingerprint=f"f{number}",
            queue=name,
            actor=name,
            error_class=short,
            error_message=text,
            first_release=short,
            last_release=short,
            resolution=text,
        )
        if text.strip("\0 "):
            deadletters.annotate(letter.pk, text=text, by=None)
            failuregroups.annotate(group.pk, text=text, by=None)
            operations.create([letter.pk], by=None, name=short, reason=text, group=group)
        audit.record(short[:50], "dead letter", [letter.pk], by=None, reason=text, to=text)
        AssignmentRule.objects.create(assignee=person, queue=name, actor=short, error_class=short)
        Queue.objects.create(name=name, paused_at=now(), pause_reason=text)
        Worker.objects.create(
            id=name, host=short, pid=1, threads=1, started_at=now(), seen_at=now(),
            queues=[name], release=short,
            running=[{"job": f"job-{number}", "queue": name, "actor": name, "attempt": 1}],
        )  # fmt: skip
        RecoveryRun.objects.create(started_at=now(), finished_at=now(), error=text)
        rows.append(letter)
    get_user_model().objects.filter(username="lead").update(first_name="<b>", last_name="\u202e")
    return rows


def test_hostile_texts_are_texts_on_every_list(lead: Client, letters: list[DeadLetter]) -> None:
    for address in LISTS:
        assert_text_only(lead.get(ROOT + address))


def test_hostile_texts_are_texts_on_every_page_of_one(
    lead: Client, letters: list[DeadLetter]
) -> None:
    for letter in letters:
        group = failuregroups.FailureGroup.objects.get(fingerprint=letter.fingerprint)
        for address in (
            f"deadletter/{letter.pk}/change/",
            f"deadletter/act/requeue/?ids={letter.pk}",
            f"job/{letter.job_id}/change/",
            f"failuregroup/{group.pk}/change/",
            f"failuregroup/{group.pk}/do/resolve/",
            f"requeueoperation/new/?group={group.pk}",
            *(f"requeueoperation/{one.pk}/change/" for one in group.operations.all()),
        ):
            assert_text_only(lead.get(ROOT + address))
        reveal = reverse("admin:queueadmin_job_reveal", args=[letter.job_id])
        assert_text_only(lead.post(reveal))


def test_hostile_texts_break_no_call_of_the_api(lead: Client, letters: list[DeadLetter]) -> None:
    for letter in letters:
        addresses = (f"dead-letters/{letter.pk}/", f"jobs/{letter.job_id}/")
        for address in (*CALLS, *addresses) if letter == letters[0] else addresses:
            answer = lead.get(f"/api/v1/{address}")
            assert answer.status_code == 200, address
            assert answer["Content-Type"] == "application/json"
            json.loads(answer.content.decode())


@pytest.mark.parametrize(("name", "query"), [("deadletter", "?status=all"), ("auditentry", "")])
def test_hostile_texts_are_cells_in_every_file(
    lead: Client, letters: list[DeadLetter], name: str, query: str
) -> None:
    csv.field_size_limit(10**8)
    answer: Any = lead.get(f"{ROOT}{name}/export/csv/{query}")
    rows = list(csv.reader(io.StringIO(answer.getvalue().decode("utf-8-sig"))))
    found: Any = lead.get(f"{ROOT}{name}/export/json/{query}")

    assert len(rows) > len(TEXTS)
    assert {len(row) for row in rows} == {len(rows[0])}
    assert all(harmless(cell) == cell for row in rows for cell in row if not cell.startswith("'"))
    assert len(json.loads(found.getvalue())) >= len(TEXTS)
