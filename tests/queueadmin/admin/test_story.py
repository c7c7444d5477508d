"""A permanent failure from its death to its recovery, through the pages."""

import dramatiq
import pytest
from django.test import Client

from queueadmin.brokers import RedisBroker
from queueadmin.exceptions import PermanentError
from queueadmin.models import DeadLetter, Job
from queueadmin.states import DeadLetterStatus, JobState
from queueadmin.testing import run_jobs

ACT = "/admin/queueadmin/deadletter/act/requeue/"


@pytest.mark.parametrize("is_corrected", [True, False])
def test_a_requeued_job_recovers_or_comes_back_with_its_history(
    anna: Client, broker: RedisBroker, is_corrected: bool
) -> None:
    numbers = {"shop": "bad"}

    @dramatiq.actor(queue_name="whatsapp-messages", broker=broker)
    def confirm(shop: str) -> None:
        if numbers[shop] == "bad":
            raise PermanentError("(#131026) Message undeliverable")

    confirm.send("shop")
    run_jobs()
    letter = DeadLetter.objects.get()
    if is_corrected:
        numbers["shop"] = "good"

    anna.post(ACT, {"ids": letter.pk, "confirmed": "yes", "reason": "number corrected"})
    assert run_jobs() == 1

    letter.refresh_from_db()
    html = anna.get(f"/admin/queueadmin/deadletter/{letter.pk}/change/").content.decode()
    assert "anna requeued it" in html
    assert "number corrected" in html
    if is_corrected:
        assert letter.status == DeadLetterStatus.RECOVERED
        assert "Recovered" in html
        assert Job.objects.get().state == JobState.COMPLETED
    else:
        assert letter.status == DeadLetterStatus.PENDING
        assert "It has failed for good 2 times." in html
