import pytest

from queueadmin import audit
from queueadmin.models import AuditEntry
from tests.queueadmin.rows import make_user

pytestmark = pytest.mark.django_db


def test_an_entry_keeps_the_name_when_the_account_is_deleted() -> None:
    anna = make_user("anna")
    audit.record("requeue", "dead letter", [1], by=anna, reason="outage over")

    anna.delete()

    entry = AuditEntry.objects.get()
    assert (entry.user, entry.user_name, entry.reason) == (None, "anna", "outage over")


def test_each_target_gets_an_entry_of_its_own() -> None:
    audit.record("assign", "dead letter", range(600), by=None, to="ben")

    assert AuditEntry.objects.filter(user_name="system", detail={"to": "ben"}).count() == 600


def test_an_entry_is_neither_changed_nor_deleted() -> None:
    audit.record("close", "dead letter", [1], by=None)
    entry = AuditEntry.objects.get()

    with pytest.raises(TypeError):
        entry.save()
    with pytest.raises(TypeError):
        entry.delete()
