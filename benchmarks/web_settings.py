"""The benchmark's settings with the site's own queues, and a view that can leave enqueues out."""

from benchmarks.settings import *  # noqa: F403
from config.settings import MIDDLEWARE, QUEUEADMIN

QUEUEADMIN = QUEUEADMIN  # the site's, not those of the other benchmarks
MIDDLEWARE = [*MIDDLEWARE, "benchmarks.without_enqueues.WithoutEnqueues"]
