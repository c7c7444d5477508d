"""How a benchmark reports: one JSON object, or a table for people."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """What one system reached, over all runs."""

    system: str
    unit: str
    median: float
    min: float
    max: float
    runs: int


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one benchmark."""

    name: str
    machine: Mapping[str, Any]
    rows: Sequence[Row]
    ratios: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> str:
        """Return the report as one JSON object."""
        return json.dumps(asdict(self), indent=2)

    def as_table(self) -> str:
        """Return the report as text."""
        lines = [f"{self.name}   ({', '.join(str(fact) for fact in self.machine.values())})", ""]
        width = max(len(row.unit) for row in self.rows)
        systems = max(len(row.system) for row in self.rows)
        lines += [
            f"{row.system:<{systems}} {row.unit:<{width}} {row.median:>12,.4g}   "
            f"{row.min:,.4g} to {row.max:,.4g} in {row.runs}"
            for row in self.rows
        ]
        lines += [f"x {ratio:.2f} of {rival}" for rival, ratio in self.ratios.items()]
        return "\n".join(lines)


def row(system: str, unit: str, values: Sequence[float]) -> Row:
    """Return the row of all values measured."""
    digits = [round(value, 4) for value in values]
    return Row(system, unit, round(median(digits), 4), min(digits), max(digits), len(digits))


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """Return our median divided by that of each rival with the same unit."""
    ours = {found.unit: found.median for found in rows if found.system == "queueadmin"}
    return {
        found.system: round(ours[found.unit] / found.median, 3)
        for found in rows
        if found.system != "queueadmin" and found.unit in ours and found.median
    }


def machine(servers: Mapping[str, str]) -> dict[str, Any]:
    """Return the facts on which the figures depend."""
    return {
        "cores": f"{os.cpu_count()} cores",
        "load": f"load {os.getloadavg()[0]:.1f} before",
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"Python {platform.python_version()}",
        "dramatiq": f"Dramatiq {version('dramatiq')}",
        "django": f"Django {version('django')}",
        **servers,
    }
