"""A short run of the fault suite; `make chaos` is the long one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.faults import Fault
from tests.chaos.journal import Journal
from tests.chaos.verdict import Outcome, judge

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


@pytest.mark.parametrize(
    ("pid", "parent", "explained"), [(50, 7, 1), (7, 1, 1), (60, 1, 0)], ids=str
)
def test_only_what_ended_its_process_or_its_worker_explains_a_second_run(
    tmp_path, pid, parent, explained
):
    path = tmp_path / "journal"
    lines = [
        _line("committed", 1, 0.0),
        _line("start", 1, 10.0, pid=pid, parent=parent),
        _line("start", 1, 14.0, pid=80, parent=1),
        _line("end", 1, 14.1, pid=80, parent=1),
    ]
    path.write_text("\n".join(lines))

    verdict = judge(
        1,
        Journal.read(path),
        [Outcome(1, "ok", "j", "completed", 1, 0, "")],
        [Fault("kill worker", 12.0, 12.1, frozenset({7}))],
        1.0,
        60.0,
    )

    assert (verdict.second_runs, verdict.second_runs_explained) == (1, explained)
    assert verdict.holds == bool(explained)


def test_a_poison_pill_explains_the_jobs_that_ran_beside_it_apart(tmp_path):
    path = tmp_path / "journal"
    lines = [
        _line("committed", 1, 0.0),
        _line("committed", 2, 0.0),
        _line("start", 1, 10.0, pid=50, parent=7),
        _line("start", 2, 11.0, pid=7, parent=1),
        _line("start", 1, 14.0, pid=80, parent=1),
        _line("end", 1, 14.1, pid=80, parent=1),
    ]
    path.write_text("\n".join(lines))

    verdict = judge(
        1,
        Journal.read(path),
        [
            Outcome(1, "ok", "j", "completed", 1, 0, ""),
            Outcome(2, "poison", "k", "dead", 1, 1, "worker_crashed"),
        ],
        [],
        1.0,
        60.0,
    )

    assert verdict.problems == []
    assert (verdict.second_runs, verdict.second_runs_explained) == (1, 1)


def _line(kind, number, at, *, pid=1, parent=1):
    entry = {"e": kind, "n": number, "job": "j", "pid": pid, "parent": parent, "t": at}
    return json.dumps(entry)
