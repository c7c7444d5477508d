"""A job survives whatever happens to any one call in its life.

A sample here, to be quick; `make crash-points` breaks every call in every way.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection

LIVES = os.environ.get("CRASH_POINTS", "12")
ROOT = Path(__file__).resolve().parents[2]
IS_COMPLETE = LIVES == "all"
pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(3000 if IS_COMPLETE else 300),
]


@pytest.mark.every_provider
def test_no_single_broken_call_loses_a_job_or_runs_it_twice(queue_server, tmp_path):
    database = connection.settings_dict
    url = f"sqlite:///{tmp_path / 'lives.sqlite3'}"
    if connection.vendor == "postgresql":
        url = "postgres://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format(**database)
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.chaos.workload.settings",
        "DATA_DIR": str(tmp_path),
        "DATABASE_URL": url,
        **queue_server.environment,
    }
    sample = [] if IS_COMPLETE else ["--sample", LIVES]

    result = subprocess.run(
        [sys.executable, "-m", "tests.chaos.crash_points", *sample],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=2900,
        check=False,
    )

    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    assert " lives over " in result.stdout
