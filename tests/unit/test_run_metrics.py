"""What a run tells Prometheus, and the dashboard that shows it."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from importlib import resources
from typing import Any

import pytest
import ray
import torch
from small_plan import ATTRIBUTE, PREDICT, RUN, done, small_plan, started

from cluster import metrics
from cluster.executor import Event
from cluster.metrics import METRICS, RunMetrics, WorkerMetrics
from cluster.profile import Profile
from cluster.ray_executor import _ray
from pipeline.stages.variant import Unit

DASHBOARD = json.loads(resources.files("cluster").joinpath("grafana/heatline.json").read_text())
Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Instrument:
    """Stands for Ray's, and keeps what it is told."""

    def __init__(self, name: str, kept: Values) -> None:
        self.name, self.kept = name, kept

    def key(self, tags: dict[str, str]) -> tuple[str, tuple[tuple[str, str], ...]]:
        return self.name, tuple(sorted((name, tag) for name, tag in tags.items() if name != "run"))

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0 and tags["run"] == RUN
        self.kept[self.key(tags)] += value

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.kept[self.key(tags)] = value

    def observe(self, value: float, tags: dict[str, str]) -> None:
        self.kept[self.key(tags)] += 1


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Values:
    values: Values = defaultdict(float)
    monkeypatch.setattr(metrics, "_instrument", lambda metric: Instrument(metric.name, values))
    return values


def tell(*events: Event) -> tuple[list[Event], Callable[[], Any]]:
    """Metrics that were told of events; what was handed on."""
    plan, seen = small_plan(), list[Event]()
    watch = RunMetrics(plan.job, plan.queue).watching(seen.append)
    for event in events:
        if event.kind == "done" and event.unit is not None:
            plan.queue.done(event.unit)
        watch(event)
    return seen, lambda: plan


def value(kept: Values, name: str, **tags: str) -> float:
    return kept[f"heatline_{name}", tuple(sorted(tags.items()))]


def test_units_samples_failures_and_seconds_are_counted_by_stage_and_model(kept: Values) -> None:
    tell(started(PREDICT, 0), done(PREDICT, 0), started(ATTRIBUTE, 0), done(ATTRIBUTE, 0, failures=1))
    predict, attribute = ({"stage": stage, "model": "net"} for stage in ("predict", "attribute"))
    assert (value(kept, "units", **predict), value(kept, "units", **attribute)) == (1, 1)
    assert (value(kept, "samples", **attribute), value(kept, "failures", **attribute)) == (2, 1)
    assert ("heatline_failures", tuple(sorted(predict.items()))) not in kept
    seconds = {phase: value(kept, "seconds", phase=phase, **predict) for phase in ("load", "compute", "write")}
    assert seconds == {"load": 1.0, "compute": 2.0, "write": 0.5}
    assert value(kept, "unit_seconds", stage="predict") == 1


def test_attempts_are_counted_with_those_that_fail(kept: Values) -> None:
    unit = Unit(PREDICT, 0, 2)
    tell(
        started(PREDICT, 0),
        Event("again", unit, reason="died", worker=0),
        started(PREDICT, 0),
        Event("lost", unit, reason="died", worker=0),
        # One that nobody tried, since those before it were lost.
        Event("lost", Unit(PREDICT, 2, 4), reason="not tried"),
    )
    tags = {"stage": "predict", "model": "net"}
    assert [value(kept, name, **tags) for name in ("attempts", "failed_attempts", "units_lost")] == [2, 2, 2]
    assert value(kept, "units_in_flight") == 0


def test_gauges_follow_what_is_in_flight_and_left(kept: Values) -> None:
    tell(Event("workers", reason="3 workers", workers=(3, 1)), started(PREDICT, 0), started(PREDICT, 2, worker=1))
    assert [value(kept, name) for name in ("workers", "workers_asked", "workers_busy")] == [3, 1, 2]
    assert (value(kept, "units_in_flight"), value(kept, "units_left")) == (2, 8)
    tell(started(PREDICT, 0), done(PREDICT, 0))
    assert (value(kept, "workers_busy"), value(kept, "units_in_flight"), value(kept, "units_left")) == (0, 0, 7)


def test_every_event_is_handed_on(kept: Values) -> None:
    events = [Event("workers", workers=(1, 0)), started(PREDICT, 0), done(PREDICT, 0), Event("stopping")]
    assert tell(*events)[0] == events


def test_names_and_tags_are_such_as_prometheus_takes() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"heatline_[a-z_]+[a-z]", metric.name) and not metric.name.endswith("_total")
        assert metric.description.endswith(".") and "run" in metric.tags
        assert (metric.kind == "histogram") == bool(metric.bounds) and list(metric.bounds) == sorted(metric.bounds)


def queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]] + [
        variable["query"]["query"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"
    ]


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    used = {name for query in queries() for name in re.findall(r"\bray_\w+", query)}
    exported = {name: metric for metric in METRICS for name in metric.exported}
    assert used <= set(exported)
    assert {exported[name].name for name in used} == {metric.name for metric in METRICS}


def test_the_dashboard_groups_by_tags_that_its_metrics_have() -> None:
    exported = {name: metric for metric in METRICS for name in metric.exported}
    for query in queries():
        found = [exported[name] for name in re.findall(r"\bray_\w+", query)]
        grouped = {name.strip() for names in re.findall(r"by \(([^)]*)\)", query) for name in names.split(",")}
        for metric in found:
            # `le` is a histogram's own; Ray adds the node's address to every metric.
            assert grouped <= {*metric.tags, "NodeAddress", *(["le"] if metric.kind == "histogram" else [])}, query


def test_the_dashboards_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_a_nodes_prometheus_port_shows_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "200")
    # All that happens here is told: nothing is lost, no attempt fails, and there is no GPU.
    silent = {"heatline_units_lost", "heatline_failed_attempts", "heatline_device_memory_bytes"}
    expected = {name for metric in METRICS if metric.name not in silent for name in metric.exported}
    shown: set[str] = set()
    with _ray(Profile(object_store_mb=100)):
        events = (started(PREDICT, 0), done(PREDICT, 0), started(ATTRIBUTE, 0), done(ATTRIBUTE, 0, failures=1))
        tell(Event("workers", workers=(1, 0)), *events)
        port = next(node["MetricsExportPort"] for node in ray.nodes() if node["Alive"])
        text, deadline = "", time.monotonic() + 60
        while shown != expected and time.monotonic() < deadline:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                text = answer.read().decode()
            shown = set(re.findall(rf'^(\w+){{.*run="{RUN}"', text, re.MULTILINE))
    assert shown == expected
    assert re.search(r'ray_heatline_samples_total\{.*model="net".*stage="predict".*\} 2\.0$', text, re.MULTILINE)
    assert re.search(r'ray_heatline_seconds_total\{.*phase="compute".*stage="attribute".*\} 2\.0$', text, re.MULTILINE)


def test_a_worker_tells_the_gpu_memory_that_it_holds(kept: Values, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value_ in (("is_available", True), ("memory_reserved", 2**30)):
        monkeypatch.setattr(torch.cuda, name, lambda value_=value_: value_)
    WorkerMetrics(RUN).note_memory()
    assert value(kept, "device_memory_bytes") == 2**30


def test_a_worker_without_a_gpu_tells_none(kept: Values, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    WorkerMetrics(RUN).note_memory()
    assert not kept
