"""Procrastinate: the no-op jobs of `benchmarks.drain`; run in an environment of its own."""

import os
import sys
import time

import procrastinate

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=os.environ["RIVAL_DATABASE_URL"])
)


@app.task(name="noop", queue=os.environ["RIVAL_QUEUE"])
async def noop(payload: str) -> None:
    """Do nothing."""


if __name__ == "__main__":
    connector = procrastinate.SyncPsycopgConnector(conninfo=os.environ["RIVAL_DATABASE_URL"])
    with app.replace_connector(connector), app.open():
        if sys.argv[3:] == ["singly"]:
            begun = time.perf_counter()
            for _ in range(int(sys.argv[1])):
                noop.defer(payload=sys.argv[2])
            sys.stdout.write(f"{time.perf_counter() - begun}\n")
            sys.exit()
        for start in range(0, int(sys.argv[1]), 500):
            number = min(500, int(sys.argv[1]) - start)
            noop.batch_defer(*({"payload": sys.argv[2]} for _ in range(number)))
