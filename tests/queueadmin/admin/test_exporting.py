import csv
import io
import json

import pytest
from django.test import Client

from queueadmin.admin import exporting
from queueadmin.models import AuditEntry
from tests.queueadmin.rows import make_dead_letter

EXPORT = "/admin/queueadmin/deadletter/export/"


def test_a_list_becomes_a_file_under_its_filters(anna: Client) -> None:
    one = make_dead_letter(job={"queue": "sms"}, error_message="late")
    make_dead_letter()

    text = anna.get(f"{EXPORT}csv/?queue=sms").getvalue().decode("utf-8-sig")  # type: ignore[attr-defined]
    found = json.loads(anna.get(f"{EXPORT}json/?queue=sms").getvalue())  # type: ignore[attr-defined]

    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["id"], row["queue"], row["text"]) == (str(one.pk), "sms", "late")
    assert [entry["id"] for entry in found] == [one.pk]
    entries = AuditEntry.objects.filter(verb="export", user_name="anna")
    assert entries.count() == 2


def test_an_empty_list_is_a_file_too(anna: Client) -> None:
    assert json.loads(anna.get(f"{EXPORT}json/").getvalue()) == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text", ["=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(A1)", "\t=1", " =1", "\r=1", "＝1", "|x"]
)
def test_no_cell_is_a_formula(text: str) -> None:
    assert str(exporting.harmless(text)).startswith(("'", "\\u"))


@pytest.mark.parametrize("value", ["plain", "", None, -3, "a=b", "12", "<b>"])
def test_other_cells_stay_as_they_are(value: object) -> None:
    assert exporting.harmless(value) == value


def test_an_unknown_format_or_reader_gets_nothing(anna: Client, stranger: Client) -> None:
    assert anna.get(f"{EXPORT}exe/").status_code == 404
    assert stranger.get(f"{EXPORT}csv/").status_code == 403
