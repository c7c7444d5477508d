"""What the benchmarks make of what they measured."""

import importlib
import json
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest

from benchmarks import __main__ as command
from benchmarks import chart, drain, memory, results, scale

ROWS = [
    results.row("queueadmin", "jobs / s", [10.0, 30.0, 20.0]),
    results.row("bare-dramatiq", "jobs / s", [10.0]),
    results.row("queueadmin", "ms <less is better>", [3.0]),
]


@pytest.mark.parametrize("name", command.NAMES)
def test_every_name_is_a_module_that_measures(name):
    assert callable(importlib.import_module(f"benchmarks.{name}").measure)


def test_a_ratio_is_our_median_over_that_of_a_rival_with_the_same_unit():
    assert results.ratios(ROWS) == {"bare-dramatiq": 2.0}


def test_the_limited_queue_is_compared_with_bare_dramatiq_without_a_limit():
    rows = [*ROWS, results.row("queueadmin", drain._LIMITED, [8.0])]

    found = drain.ratios(rows)

    assert found == {"bare-dramatiq": 2.0, "bare-dramatiq, ours limited to 16": 0.8}


def test_memory_and_scale_divide_what_grew_by_what_it_grew_from():
    held = [results.row(name, "MB", [mb]) for name, mb in (("queueadmin", 110), ("bare", 100))]
    sizes = ("1 waiting", "10 waiting", "0 more in the ledger", "9 more in the ledger")
    costs = [
        results.row(f"queueadmin, {size}", unit, [us])
        for unit in ("us of CPU per job", "us per job")
        for size, us in zip(sizes, (10, 12, 10, 9), strict=True)
    ]

    assert memory.ratios(held) == {"bare-dramatiq": 1.1}
    assert scale.ratios(costs) == {
        "waiting, us of CPU per job": 1.2,
        "waiting, us per job": 1.2,
        "in the ledger, us of CPU per job": 0.9,
        "in the ledger, us per job": 0.9,
    }


def test_json_is_one_object_whatever_the_programs_measured_write(monkeypatch, capfd):
    def measure(stand, *, quick):
        subprocess.run([sys.executable, "-c", "print('1.5 s of a rival')"], check=True)
        return ROWS

    monkeypatch.setattr("benchmarks.enqueue.measure", measure)
    monkeypatch.setattr(command, "stand", lambda: nullcontext(SimpleNamespace(servers={})))

    assert command.main(["enqueue", "--format", "json"]) == 0
    written = capfd.readouterr()
    assert json.loads(written.out)["name"] == "enqueue"
    assert "1.5 s of a rival" in written.err


def test_the_chart_is_xml_that_names_every_system_unit_and_median():
    report = results.Report("drain", {"cores": "2 cores"}, ROWS)

    texts = [element.text for element in ET.fromstring(chart.svg(report)).iter() if element.text]

    assert {"jobs / s", "ms <less is better>", "queueadmin", "bare-dramatiq", "20", "3"} <= {
        text.strip() for text in texts
    }
