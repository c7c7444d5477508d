"""What is written reads, by the parsers of Prometheus' own client, as what that client writes."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import exposition as theirs
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.openmetrics import exposition as their_openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read_text

from queueadmin.exposition import OPENMETRICS, TEXT, Family, render

READ: dict[str, Callable[[str], Any]] = {TEXT: read_text, OPENMETRICS: read_openmetrics}
WRITE: dict[str, Callable[[Any], bytes]] = {
    TEXT: theirs.generate_latest,
    OPENMETRICS: their_openmetrics.generate_latest,
}
BOUNDS = (0.001, 0.3, 10, 1_000_000)
# Their reader of the text format takes a carriage return and its kin for the end of a line.
LABELS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"])) | st.just(
    'a\\n"b"\n{le="1"} 3'
)
COUNTS = st.integers(0, 2**53)


class Registry:
    def __init__(self, *families: Any) -> None:
        self.families = families

    def collect(self) -> Any:
        return self.families


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS])
@given(
    queue=LABELS,
    actor=LABELS,
    number=COUNTS,
    level=st.floats(allow_nan=False),
    buckets=st.lists(COUNTS, min_size=5, max_size=5),
    total=st.floats(0, allow_infinity=False),
)
def test_it_reads_as_what_prometheus_client_writes(
    form, queue, actor, number, level, buckets, total
):
    names = ("queue", "actor")
    done = Family("x_done", "counter", "What is done.", names)
    done.add(number, queue, actor)
    now = Family("x_now", "gauge", "How it is.")
    now.add(level)
    took = Family("x_seconds", "histogram", "How long.", names)
    took.add_histogram(BOUNDS, buckets, total, queue, actor)
    nothing = Family("x_nothing", "gauge", "Without a sample.")

    counter = CounterMetricFamily("x_done", "What is done.", labels=names)
    counter.add_metric((queue, actor), number)
    sums = [sum(buckets[: place + 1]) for place in range(5)]
    histogram = HistogramMetricFamily("x_seconds", "How long.", labels=names)
    bounds = [*(repr(float(bound)) for bound in BOUNDS), "+Inf"]
    histogram.add_metric((queue, actor), list(zip(bounds, map(float, sums), strict=True)), total)
    expected = WRITE[form](
        Registry(
            counter,
            GaugeMetricFamily("x_now", "How it is.", value=level),
            histogram,
            GaugeMetricFamily("x_nothing", "Without a sample."),
        )
    ).decode()
    written = render([done, now, took, nothing], form)

    assert list(READ[form](written)) == list(READ[form](expected))


def test_a_sample_with_too_few_labels_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="shorter"):
        Family("x", "gauge", "Of a queue.", ("queue",)).add(1)
