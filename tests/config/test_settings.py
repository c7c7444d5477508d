"""Settings that cannot work are refused with what would be right."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def check(tmp_path, **environment):
    """Return what `manage.py check` says to an environment."""
    given = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT,
        env={**given, "DEBUG": "1", "DATA_DIR": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"QUEUE_PROVIDER": "rabbit"}, "QUEUE_PROVIDER is 'rabbit'; it must be redis"),
        ({"QUEUE_PROVIDER": "rabbitmq"}, "RABBITMQ_URL is not set. Set it in the environment"),
        (
            {"QUEUE_PROVIDER": "rabbitmq", "RABBITMQ_URL": "redis://localhost"},
            "RABBITMQ_URL begins with 'redis'; it must be amqp://",
        ),
    ],
)
def test_a_queue_provider_that_cannot_work_is_refused(tmp_path, environment, problem):
    found = check(tmp_path, **environment)

    assert found.returncode != 0
    assert problem in found.stderr


def test_rabbitmq_needs_no_server_to_check_the_settings(tmp_path):
    (tmp_path / "static").mkdir()
    found = check(tmp_path, QUEUE_PROVIDER="rabbitmq", RABBITMQ_URL="amqp://127.0.0.1:1/")

    assert found.returncode == 0, found.stderr


def shown(tmp_path, expression, **environment):
    """Return what an expression of the settings is in an environment."""
    found = subprocess.run(
        [sys.executable, "-c", f"from config import settings; print(settings.{expression})"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DEBUG": "1", "DATA_DIR": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    return found.stdout.strip()


def test_a_lost_postgresql_is_noticed_unless_its_address_says_otherwise(tmp_path):
    address = "postgres://user@db.example/name?keepalives_idle=60&sslmode=require"
    found = shown(tmp_path, "DATABASES['default']['OPTIONS']", DATABASE_URL=address)

    assert ast.literal_eval(found) == {
        "connect_timeout": 5,
        "keepalives_idle": 60,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
        "sslmode": "require",
    }


def test_the_sandbox_is_looked_for_beside_the_site_that_ran_last(tmp_path):
    (tmp_path / "port").write_text("8100\n")

    assert shown(tmp_path, "SANDBOX_URL") == "http://127.0.0.1:8120"
