"""The site's settings as the tests run them: no service needed, nothing outside touched."""

import os
import tempfile
from pathlib import Path

#: Directory of one test run; pytest-xdist's processes inherit it from the first one.
RUN_DIR = Path(os.environ.get("QUEUEADMIN_TEST_DIR") or tempfile.mkdtemp(prefix="qa-"))
os.environ["QUEUEADMIN_TEST_DIR"] = str(RUN_DIR)
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
_data_dir = RUN_DIR / (WORKER or "main")
(_data_dir / "static").mkdir(parents=True, exist_ok=True)

os.environ["DATA_DIR"] = str(_data_dir)
os.environ.update(DEBUG="1", HTTPS="0", LOG_LEVEL="WARNING")
if WORKER and (url := os.environ.get("REDIS_URL", "")).startswith("redis"):
    # Each process of pytest-xdist empties its own database of the server between tests.
    base, _, number = url.rpartition("/")
    os.environ["REDIS_URL"] = f"{base}/{int(number) + int(WORKER.removeprefix('gw'))}"

from config.settings import *  # noqa: E402, F403  # after the environment it reads
from config.settings import DATABASES, INSTALLED_APPS, STATIC_ROOT  # noqa: E402

INSTALLED_APPS = [*INSTALLED_APPS, "tests.flushing"]

if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # A file: worker threads of a test must see the same database, as they do in production.
    DATABASES["default"]["TEST"] = {"NAME": str(_data_dir / "test.sqlite3")}
    DATABASES["default"]["OPTIONS"]["init_command"] = (
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;"
    )
else:
    # Leaving transactions to idle connections would block the flush between tests.
    DATABASES["default"]["CONN_MAX_AGE"] = 0
    DATABASES["default"]["TEST"] = {"NAME": f"test_{DATABASES['default']['NAME']}"}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # fast, tests only
# WhiteNoise warns about a missing directory, and warnings are errors here.
STATIC_ROOT.mkdir(exist_ok=True)
