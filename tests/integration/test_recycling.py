"""A process may be replaced by a fresh one after so many jobs."""

import pytest

from tests.integration.fleet import completed, wait_until, workers

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]


@pytest.fixture
def master_arguments() -> list[str]:
    return ["--recycle-jobs", "5"]


def test_processes_are_replaced_after_their_share_and_no_job_runs_twice(master, work, journal):
    before = {child.pid for child in workers(master)}
    for number in range(20):
        work.send(number)

    wait_until(lambda: completed() == 20)
    wait_until(lambda: {child.pid for child in workers(master)} - before)
    assert journal.read_text().count("end ") == 20
