"""What stands under deploy/: the dashboard and the alert rules speak of metrics that exist."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from queueadmin.metrics import collect

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "queueadmin.json").read_text())
GROUPS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
TARGETS = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "gauge": ("",),
}


def query(expression: str) -> str:
    """Return a panel's query as Grafana would send it."""
    return expression.replace("$__rate_interval", "1m").replace("$queue", ".*")


EXPRESSIONS = [query(target["expr"]) for target in TARGETS] + [rule["expr"] for rule in RULES]


def selectors(node: Any) -> Iterator[Any]:
    """Return every selector of a parsed query."""
    found: list[Any] = []

    def visit(each: Any) -> bool:
        if isinstance(each, promql_parser.VectorSelector):
            found.append(each)
        return True

    promql_parser.walk(node, visit)
    return iter(found)


@pytest.fixture
def exposed(db: None) -> set[str]:
    """Names of every sample that there can be."""
    return {family.name + suffix for family in collect() for suffix in SUFFIXES[family.kind]}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_query_parses_and_asks_for_metrics_that_exist(expression, exposed):
    names = {selector.name for selector in selectors(promql_parser.parse(expression))}

    assert names
    assert names <= exposed


def test_an_invented_metric_would_be_found(exposed):
    (selector,) = selectors(promql_parser.parse("rate(queueadmin_nothing_total[5m]) > 0"))

    assert selector.name not in exposed
    with pytest.raises(ValueError, match=r"."):
        promql_parser.parse("sum by (queue (queueadmin_jobs)")


def test_every_metric_is_on_the_dashboard(exposed):
    used = set(re.findall(r"queueadmin_\w+", " ".join(EXPRESSIONS)))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed}

    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in used} == families


def test_panels_have_titles_and_places_of_their_own():
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert panel["title"]
        assert not mine & cells
        assert max(x for x, _ in mine) < 24
        cells |= mine
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_says_how_bad_it_is_and_what_to_do(rule):
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "description"}
    kept = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
    grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", rule["expr"]))))
    assert kept <= grouped
