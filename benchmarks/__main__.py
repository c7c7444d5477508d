"""`python -m benchmarks NAME --format json|table [--quick] [--folder FOLDER]`."""

import argparse
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import chart, results
from .stand import stand

#: Each a module with `measure(stand, *, quick)`, and where medians do not compare well, with a
#: `ratios(rows)` of its own.
NAMES = (
    "drain",
    "enqueue",
    "latency",
    "limits",
    "lists",
    "memory",
    "outcomes",
    "priority",
    "recovery",
    "scale",
    "schedule",
    "statistics",
    "web",
)


def main(arguments: list[str] | None = None) -> int:
    """Run one benchmark and print its report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--format", choices=("json", "table"), default="table")
    parser.add_argument("--quick", action="store_true", help="fewer jobs and runs")
    parser.add_argument("--folder", type=Path, help="keep the report there as JSON and SVG, too")
    options = parser.parse_args(arguments)
    with _only_the_report(), stand() as servers:
        machine = results.machine(servers.servers)
        benchmark = importlib.import_module(f".{options.name}", __package__)
        rows = benchmark.measure(servers, quick=options.quick)
    ratios = getattr(benchmark, "ratios", results.ratios)
    report = results.Report(options.name, machine, rows, ratios(rows))
    text = report.as_json() if options.format == "json" else report.as_table()
    sys.stdout.write(f"{text}\n")
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        (options.folder / f"{options.name}.json").write_text(report.as_json() + "\n")
        (options.folder / f"{options.name}.svg").write_text(chart.svg(report))
    return 0


@contextmanager
def _only_the_report() -> Iterator[None]:
    """Send what anything measured here writes, rivals' programs included, to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


if __name__ == "__main__":
    sys.exit(main())
