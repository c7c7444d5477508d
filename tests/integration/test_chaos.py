"""A short run of the fault suite; `make chaos` is the long one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(400)
def test_a_minute_of_faults_breaks_no_guarantee():
    is_second_run = bool(os.environ.get("TEST_POSTGRESQL_URL"))
    has_server = shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    database = "postgresql" if is_second_run and has_server else "sqlite"
    command = [sys.executable, "-m", "tests.chaos", "--database", database]
    found = subprocess.run(
        [*command, "--seed", "3", "--minutes", "1", "--quick"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("TEST_")},
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-3000:]
