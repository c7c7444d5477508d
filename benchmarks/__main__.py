"""`python -m benchmarks NAME --format json|table [--quick]`."""

import argparse
import importlib
import sys

from . import results
from .stand import stand

#: Each a module with `measure(stand, *, quick)`, and where medians do not compare well, with a
#: `ratios(rows)` of its own.
NAMES = (
    "drain",
    "enqueue",
    "latency",
    "limits",
    "lists",
    "priority",
    "recovery",
    "schedule",
    "web",
)


def main(arguments: list[str] | None = None) -> int:
    """Run one benchmark and print its report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--format", choices=("json", "table"), default="table")
    parser.add_argument("--quick", action="store_true", help="fewer jobs and runs")
    options = parser.parse_args(arguments)
    with stand() as servers:
        machine = results.machine(servers.servers)
        benchmark = importlib.import_module(f".{options.name}", __package__)
        rows = benchmark.measure(servers, quick=options.quick)
    ratios = getattr(benchmark, "ratios", results.ratios)
    report = results.Report(options.name, machine, rows, ratios(rows))
    text = report.as_json() if options.format == "json" else report.as_table()
    sys.stdout.write(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
