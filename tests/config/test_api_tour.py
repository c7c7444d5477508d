"""The tour of the API that the docs print, run as it is against a site with a worker."""

import os
import shutil
import subprocess
from pathlib import Path

import dramatiq
import pytest
from django.contrib.auth.models import User
from rest_framework.authtoken.models import Token

from queueadmin.models import DeadLetter, Job
from queueadmin.states import JobState
from tests import services

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def worker(redis_url, transactional_db):
    worker = dramatiq.Worker(dramatiq.get_broker(), worker_threads=2, worker_timeout=100)
    worker.start()
    yield worker
    worker.stop(timeout=5_000)


@pytest.mark.timeout(120)
def test_the_tour_of_the_api_ends_well(live_server, worker):
    if shutil.which("curl") is None:
        (pytest.fail if services.IS_REQUIRED else pytest.skip)("curl is not installed")
    user = User.objects.create_superuser("lead")
    environment = {
        **os.environ,
        "URL": live_server.url + "/api/v1",
        "TOKEN": Token.objects.create(user=user).key,
    }
    tour = subprocess.run(
        ["sh", str(ROOT / "docs" / "api-tour.sh")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert (tour.returncode, tour.stdout.splitlines()[-1]) == (0, "Done"), tour.stdout + tour.stderr
    assert set(Job.objects.values_list("actor", "state")) == {
        ("recalculate_credit_scores", JobState.COMPLETED),
        ("order_completion", JobState.CANCELLED),
    }
    assert not DeadLetter.objects.exists()
