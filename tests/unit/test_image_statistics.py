"""What a split's statistics say of it: the moments of its pixels, and which samples have a label."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.contracts import Cost
from pipeline.errors import ShardError
from pipeline.part import Failed
from pipeline.stages.image_cache import Samples
from pipeline.stages.image_statistics import channel_statistics, labelled_positions
from pipeline.stages.statistics import Statistics
from pipeline.stages.variant import Unit, Variant
from pipeline.store import Output, open_output

VARIANT = Variant("statistics/one", "statistics", "f" * 16, 20, 8, Cost(), (), "model")


def samples(start: int, stop: int, missing: int | None = None) -> Samples:
    generator = torch.Generator().manual_seed(start)
    positions = [position for position in range(start, stop) if position != missing]
    images = torch.randint(0, 256, (len(positions), 3, 5, 7), generator=generator).to(torch.uint8)
    images[:, 2] = 9
    labels = torch.tensor([position % 4 - 1 for position in positions])  # every fourth is unknown
    failed = () if missing is None else (Failed(missing, f"s{missing}", "corrupt"),)
    return Samples(images, labels, tuple(f"s{position}" for position in positions), tuple(positions), failed)


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """Twenty samples in three parts, of which the one at position 10 is corrupt."""
    output = open_output(tmp_path / "out", create=True)
    for start, stop in ((0, 8), (8, 16), (16, 20)):
        around: Any = SimpleNamespace(images=lambda split, m=10: SimpleNamespace(get=lambda a, b: samples(a, b, m)))
        if not start <= 10 < stop:
            around = SimpleNamespace(images=lambda split: SimpleNamespace(get=samples))
        stage, unit = Statistics(), Unit(VARIANT.path, start, stop)
        outcome = stage.compute(around, VARIANT, stage.load(around, VARIANT, unit))
        output.commit(VARIANT.path, start, stop, outcome.table, outcome.failed, outcome.expected)
    return output


def test_mean_and_deviation_are_those_of_all_pixels(output: Output) -> None:
    images = torch.cat([samples(0, 8).images, samples(8, 16, 10).images, samples(16, 20).images]).numpy() / 255
    found = channel_statistics(output, VARIANT.path, 20)
    np.testing.assert_allclose(found.mean, images.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(found.std[:2], images.std((0, 2, 3))[:2], rtol=1e-12)
    assert found.std[2] == 1 / 255  # of one colour


def test_samples_beyond_those_asked_for_do_not_count(output: Output) -> None:
    images = samples(0, 8).images.numpy()[:5] / 255
    np.testing.assert_allclose(channel_statistics(output, VARIANT.path, 5).mean, images.mean((0, 2, 3)), rtol=1e-12)


def test_networks_see_what_has_a_label_and_can_be_decoded(output: Output) -> None:
    slow = [position for position in range(20) if position % 4 and position != 10]
    assert labelled_positions(output, VARIANT.path, 20).tolist() == slow
    assert labelled_positions(output, VARIANT.path, 6).tolist() == [1, 2, 3, 5]
    assert labelled_positions(output, "statistics/two", 20).tolist() == []


def test_a_split_that_cannot_be_decoded_is_named(output: Output) -> None:
    with pytest.raises(ShardError, match="statistics/two: no image of the training split can be decoded"):
        channel_statistics(output, "statistics/two", 20)
