"""What holds for every attribution method."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from method_parameters import QUICK, STOPS_EARLY
from small_models import make_batch, small_classifier
from torch import nn

from pipeline.contracts import AttributionMethod, Batch, Setting
from pipeline.methods import METHODS
from pipeline.models.pass_counter import counting
from pipeline.noise import Noise


@pytest.fixture(params=METHODS, ids=lambda kind: kind.model_fields["name"].default)
def method(request: pytest.FixtureRequest) -> AttributionMethod:
    kind = request.param
    found: AttributionMethod = kind(**QUICK.get(kind.model_fields["name"].default, {}))
    return found


def test_maps_have_the_images_size_and_are_finite(method: AttributionMethod) -> None:
    model = small_classifier()
    batch = make_batch(model)
    maps = method(model, batch, Noise())
    assert maps.shape in {(5, 3, 8, 8), (5, 1, 8, 8)} and maps.dtype == torch.float32
    assert maps.isfinite().all() and not maps.requires_grad
    assert maps.flatten(1).std(1).min() > 0


@pytest.mark.parametrize("rows", [1, 2, 3, 64])
def test_a_map_does_not_depend_on_its_batch(method: AttributionMethod, rows: int) -> None:
    model = small_classifier()
    batch = make_batch(model)
    together = method(model, batch, Noise(4))
    model.rows = rows
    for cut in ([0, 1, 5], [0, 5], [0, 2, 3, 5]):
        pieces = [
            method(model, Batch(batch.images[a:b], batch.targets[a:b], batch.ids[a:b]), Noise(4))
            for a, b in pairwise(cut)
        ]
        torch.testing.assert_close(torch.cat(pieces), together, atol=1e-5, rtol=0)


def test_the_model_is_left_as_it_was(method: AttributionMethod) -> None:
    model = small_classifier()
    batch = make_batch(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, state = batch.images.clone(), torch.get_rng_state()
    method(model, batch, Noise())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(batch.images, images) and torch.equal(state, torch.get_rng_state())
    assert not model.training and all(parameter.grad is None for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert hooks(model) == 0


def test_nothing_is_left_on_the_model_after_an_error(method: AttributionMethod) -> None:
    if method.name == "random":
        pytest.skip("does not touch the model")
    model = small_classifier()
    batch = make_batch(model)
    head = model.network[6]
    with pytest.raises(RuntimeError):
        model.network[6] = nn.Linear(99, 5)
        method(model, batch, Noise())
    model.network[6] = head
    assert hooks(model) == 0 and not model.training


def hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def test_the_declared_cost_is_what_is_counted(method: AttributionMethod) -> None:
    model = small_classifier()
    batch = make_batch(model)
    declared = method.cost(Setting(5, 8, 8))
    with counting(model) as counts:
        method(model, batch, Noise())
    forwards, backwards = counts.forwards / 5, counts.backwards / 5
    assert forwards <= declared.forwards and backwards <= declared.backwards
    if method.name not in STOPS_EARLY:
        assert (forwards, backwards) == (declared.forwards, declared.backwards)


def test_its_source_is_named(method: AttributionMethod) -> None:
    assert "Source:" in str(type(method).__doc__)
