"""The page of metrics, the dashboard and what the services really report are one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from coordinator.metrics import CODES, CoordinatorMetrics
from coordinator.service import CoordinatorService
from enterprise_node.laps import PARTS
from enterprise_node.metrics import NodeMetrics
from enterprise_node.service import NodeService
from federation.home import Home
from federation.observability import exposition
from keyong.cli import run
from keyong.cli._refusals import CODES as EXPLAINED
from sandbox import Runtime

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "keyong.json").read_text(encoding="utf-8"))
ROW = re.compile(r"^\| `(keyong_\w+)` \| (\w+) \|([^|]*)\|[^|]+\|$", re.MULTILINE)
NAME = re.compile(r"\b(?:keyong|process)_\w+")


@pytest.fixture(scope="module")
def registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, CollectorRegistry]]:
    home = tmp_path_factory.mktemp("metrics") / "home"
    founded = (
        "--home",
        home,
        "consortium",
        "init",
        "--name",
        "P",
        "--member",
        "m",
        "--entity",
        "E",
        "--address",
        "a:1",
    )
    assert run([str(one) for one in founded]) == 0
    runtime = Runtime(home, "sha256:" + "7" * 64)
    node, coordinator = NodeService(Home(home), runtime), CoordinatorService(Home(home), runtime, "127.0.0.1:0")
    # One of each that is counted, so that its labels show.
    node.metrics.settled("train", "ok", dict.fromkeys(PARTS, 0.1))
    node.metrics.denied("purpose")
    node.metrics.describe("T2")  # once the canary has told which tier holds
    for kind in ("fell-out", "denied"):
        coordinator.metrics.event("job", kind, {"node": "mill-a", "code": "link-lost"})
    coordinator._links._served.add("mill-a")
    yield {"node": node.metrics.registry, "coordinator": coordinator.metrics.registry}


def reported(registry: CollectorRegistry) -> dict[str, tuple[str, frozenset[str]]]:
    found = {}
    for family in text_string_to_metric_families(exposition(registry).decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = (family.type, frozenset(labels))
    return found


def test_the_page_lists_what_is_reported_and_nothing_else(registries: dict[str, CollectorRegistry]) -> None:
    listed = {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in ROW.findall(PAGE)}
    found = {
        name: what
        for registry in registries.values()
        for name, what in reported(registry).items()
        if name.startswith("keyong_")
    }
    assert listed == found
    process = {name for name in reported(registries["node"]) if name.startswith("process_")}
    assert process == set(re.findall(r"`(process_\w+)`", PAGE))


def expressions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("expr", "query") and isinstance(inner, str):
                yield inner
            else:
                yield from expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner)


def test_every_query_of_the_dashboard_uses_a_metric_and_labels_that_exist(
    registries: dict[str, CollectorRegistry],
) -> None:
    known = {name: what for registry in registries.values() for name, what in reported(registry).items()}
    used = set()
    for expression in expressions(DASHBOARD):
        for name in NAME.findall(re.sub(r'"[^"]*"', "", expression)):
            bare = re.sub(r"_(bucket|sum|count)$", "", name)
            kind, labels = known[name] if name in known else known[bare]
            assert name in known or kind == "histogram", name
            used.add(name if name in known else bare)
            for by in re.findall(r"by \(([^)]*)\)", expression):
                assert set(re.split(r",\s*", by)) <= labels | {"le", "instance"}, expression
    assert {name for name in known if name.startswith("keyong_")} <= used, "the dashboard shows every metric"


def test_panels_are_titled_in_both_languages() -> None:
    for panel in DASHBOARD["panels"]:
        assert re.search(r"[a-zA-Z]", panel["title"])
        assert re.search(r"[\u4e00-\u9fff]", panel["description"]), panel["title"]


def test_codes_that_are_explained_are_told_apart() -> None:
    assert set(EXPLAINED) <= set(CODES)
    assert list(CODES) == sorted(set(CODES))


@pytest.mark.parametrize("make", [CoordinatorMetrics, NodeMetrics])
def test_what_others_send_makes_no_labels(make: Callable[[], Any]) -> None:
    metrics = make()
    for number in range(1000):
        if isinstance(metrics, NodeMetrics):
            metrics.denied(f"made-up-{number}")
        else:
            metrics.event("job", "fell-out", {"node": "x", "code": f"made-up-{number}"})
    series = [line for line in exposition(metrics.registry).splitlines() if b"made-up" in line or b'"other"' in line]
    assert 0 < len(series) <= 101
