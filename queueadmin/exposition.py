"""Writes metrics in the two text formats that Prometheus reads.

Sources: "Exposition formats" of Prometheus' documentation, text version 0.0.4; "OpenMetrics"
1.0.0. They differ, for what is written here, in the name that a counter's head has and in the
last line.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Literal

TEXT = "text/plain"
OPENMETRICS = "application/openmetrics-text"
CONTENT_TYPES = {
    TEXT: f"{TEXT}; version=0.0.4; charset=utf-8",
    OPENMETRICS: f"{OPENMETRICS}; version=1.0.0; charset=utf-8",
}

Kind = Literal["counter", "gauge", "histogram"]


class Family:
    """A metric with all its samples, each kept as the line that it becomes.

    Args:
        name: without the suffix of its samples.
        kind: what Prometheus calls its type.
        documentation: one line without quotes and backslashes.
        labels: their names, in the order in which values are given.
    """

    def __init__(
        self, name: str, kind: Kind, documentation: str, labels: Sequence[str] = ()
    ) -> None:
        self.name, self.kind = name, kind
        self._documentation, self._labels = documentation, labels
        self._lines: list[str] = []

    def add(self, value: float, *labels: str) -> None:
        """Add the sample of a counter or a gauge."""
        suffix = "_total" if self.kind == "counter" else ""
        text = self._text(labels)
        self._lines.append(f"{self.name}{suffix}{f'{{{text}}}' if text else ''} {float(value)!r}\n")

    def add_histogram(
        self, bounds: Sequence[float], counts: Sequence[float], total: float, *labels: str
    ) -> None:
        """Add the samples of a histogram.

        Args:
            bounds: the upper ones of all buckets but the last.
            counts: how many fell into each bucket alone.
            total: the sum of all values.
            labels: values of the labels.
        """
        text, name = self._text(labels), self.name
        head = f"{name}_bucket{{{text}{',' if text else ''}le="
        below = list(accumulate(counts))
        self._lines += [
            f'{head}"{bound}"}} {float(count)!r}\n'
            for bound, count in zip([*map(float, bounds), "+Inf"], below, strict=True)
        ]
        around = f"{{{text}}}" if text else ""
        self._lines.append(f"{name}_count{around} {float(below[-1])!r}\n")
        self._lines.append(f"{name}_sum{around} {float(total)!r}\n")

    def _text(self, labels: Sequence[str]) -> str:
        return ",".join(
            f'{name}="{_escaped(value)}"'
            for name, value in zip(self._labels, labels, strict=True)
        )  # fmt: skip

    def lines(self, form: str) -> list[str]:
        """Return the lines of the metric in TEXT or OPENMETRICS."""
        is_text = form == TEXT and self.kind == "counter"
        name = f"{self.name}_total" if is_text else self.name
        head = f"# HELP {name} {self._documentation}\n# TYPE {name} {self.kind}\n"
        return [head, *self._lines]


def render(families: Iterable[Family], form: str) -> str:
    """Return the whole answer in TEXT or OPENMETRICS."""
    lines = [line for family in families for line in family.lines(form)]
    return "".join([*lines, "# EOF\n"] if form == OPENMETRICS else lines)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
