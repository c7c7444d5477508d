"""The groups of staff that a fresh installation has."""

import pytest
from django.contrib.auth.models import Group, Permission

pytestmark = pytest.mark.django_db


def codes(name: str) -> set[str]:
    group = Group.objects.get(name=f"Queues: {name}")
    return set(group.permissions.values_list("codename", flat=True))


def test_a_viewer_looks_an_operator_acts_a_lead_decides() -> None:
    every = set(
        Permission.objects.filter(content_type__app_label="queueadmin").values_list(
            "codename", flat=True
        )
    )

    assert codes("viewer") == {code for code in every if code.startswith("view_")}
    assert codes("viewer") < codes("operator") < codes("lead") == every
    assert "requeue_deadletter" in codes("operator")
    assert not codes("operator") & {"close_deadletter", "reveal_payload", "limit_queue"}
