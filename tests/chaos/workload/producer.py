"""Places orders until told to stop, and writes down what it knows of each.

`python -m tests.chaos.workload.producer SEED PER_SECOND POISON_EVERY`; the journal's name is in the
environment. It writes "try" before a transaction, "committed" when the commit has
returned, "rolled back" when it undid the order on purpose, and "unknown" when the
database failed it.
"""

import random
import signal
import sys
import threading
import time

import django
from dramatiq.errors import DramatiqError
from redis import RedisError

_MODES = ["ok"] * 70 + ["flaky"] * 12 + ["dead"] * 8 + ["parent"] * 10


class _Undo(Exception):
    pass


def main(seed: int, per_second: float, poison_every: int) -> None:
    """Place orders until SIGTERM."""
    django.setup()
    from django.db import Error, connection, transaction

    from .actors import enqueue, free, limited, note
    from .models import Order

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    rng = random.Random(seed)
    number = 0
    while not stop.wait(rng.expovariate(per_second)):
        number += 1
        # Rare, and counted apart: each kills three processes.
        is_poison = poison_every and number % poison_every == 0
        mode = "poison" if is_poison else rng.choice(_MODES)
        actor = rng.choice([free, free, limited])
        seconds = rng.choice([0.0, 0.01, 0.02, 0.1, 0.3, 2.0])
        delay = rng.choice([None, None, None, None, rng.randint(500, 15_000)])
        must_undo = rng.random() < 0.1
        note("try", number)
        try:
            with transaction.atomic():
                order = Order.objects.create(number=number, mode=mode)
                order.job = enqueue(actor, number, mode, seconds, delay=delay)
                order.save()
                if must_undo:
                    raise _Undo
        except _Undo:
            note("rolled back", number)
        except Error:
            note("unknown", number)
            connection.close()
            time.sleep(0.2)
        except (DramatiqError, RedisError):
            # After the commit, and only with plain Dramatiq: the order is there without a job.
            note("committed", number)
        else:
            note("committed", number)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
