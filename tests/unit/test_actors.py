"""What a worker takes of its node."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import cluster.actors
from cluster.actors import on_this_node
from pipeline.data.digits import Digits
from pipeline.stages.variant import Job, WorkOptions

JOB = Job("out", Digits(), "index", 0, {}, {}, 10, options=WorkOptions(device_share=0.5))


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod of four cores on a machine of many, beside another node."""
    nodes = [
        {"NodeID": "other", "Resources": {"CPU": 64.0}},
        {"NodeID": "here", "Resources": {"CPU": 4.0}},
    ]
    context = SimpleNamespace(get_node_id=lambda: "here")
    fake = SimpleNamespace(nodes=lambda: nodes, get_runtime_context=lambda: context)
    monkeypatch.setattr(cluster.actors, "ray", fake)


@pytest.mark.parametrize(("cpus", "share"), [(1.0, 0.25), (0.5, 0.125), (4.0, 1.0), (8.0, 1.0)])
def test_a_worker_without_a_gpu_counts_on_its_cores_share_of_the_nodes_memory(
    node: None, cpus: float, share: float
) -> None:
    assert on_this_node(JOB, cpus, "cpu").options.device_share == share


def test_one_with_a_gpu_counts_on_the_share_of_it_that_its_profile_says(node: None) -> None:
    assert on_this_node(JOB, 1.0, "cuda") is JOB
