"""Puts the clock of every Python process of a "host" wrong by CHAOS_SKEW seconds.

On the PYTHONPATH of that host's processes only. Monotonic time stays right, as it does
on a host whose clock is off. libfaketime cannot be used: under it `time.sleep` of
Python 3.11 fails, because it sleeps until a point of monotonic time.
"""

import datetime
import os

import time_machine

if _seconds := float(os.environ.get("CHAOS_SKEW", "0")):
    _now = datetime.datetime.now(datetime.UTC)
    time_machine.travel(_now + datetime.timedelta(seconds=_seconds), tick=True).start()
