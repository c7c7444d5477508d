"""What the ledger writes into a message as it is pushed."""

import pickle
from datetime import UTC, datetime, timedelta

import dramatiq
import pytest
from django.db import transaction

from queueadmin import ledger
from queueadmin.clock import now
from queueadmin.models import Job
from queueadmin.states import PARKED
from tests.queueadmin.rows import make_dead_letter, make_job

pytestmark = pytest.mark.django_db


class Pickled(dramatiq.Encoder):
    def encode(self, data):
        return pickle.dumps(data)

    def decode(self, data):
        return pickle.loads(data)


@pytest.fixture(params=[dramatiq.JSONEncoder, Pickled])
def message(request):
    before = dramatiq.get_encoder()
    dramatiq.set_encoder(request.param())
    yield dramatiq.Message("q", "work", (1,), {}, {}, message_timestamp=1_000)
    dramatiq.set_encoder(before)


def pushed(**fields):
    make_job(**fields)
    (parcel,) = ledger.parcels_of(Job.objects.all())
    return dramatiq.Message.decode(parcel.data)


def test_a_message_says_how_often_it_ran_whatever_encodes_it(message):
    found = pushed(message=message.encode(), attempts=2)

    assert (found.options, found.message_timestamp) == ({"retries": 2}, 1_000)


def test_a_requeued_job_is_as_old_as_its_new_round(message):
    before = now().timestamp() * 1000 - 1
    found = pushed(message=message.encode(), requeues=1)

    assert found.options == {"retries": 0}
    assert found.message_timestamp >= before


def test_a_parked_job_says_since_when(message):
    at = datetime(2026, 11, 30, 12, tzinfo=UTC)
    found = pushed(message=message.encode(), parked_at=at)

    assert found.options == {"retries": 0, PARKED: at.timestamp() * 1000}


def test_bytes_that_nothing_reads_go_as_they_are():
    make_job(message=b"\xff\x00", attempts=1)

    assert ledger.parcels_of(Job.objects.all())[0].data == b"\xff\x00"


def test_a_job_that_is_requeued_or_moved_is_no_longer_parked():
    ago = now() - timedelta(hours=1)
    moved = make_job(state="scheduled", parked_at=ago)
    dead = make_dead_letter(job={"parked_at": ago}).job

    with transaction.atomic():
        ledger.reschedule([moved.pk], now() + timedelta(hours=1), lambda parcels: set())
        ledger.requeue([dead.pk])

    assert set(Job.objects.values_list("parked_at", flat=True)) == {None}
