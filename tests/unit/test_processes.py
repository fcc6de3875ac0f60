"""Two processes that train one network: the same network as one process trains, and no process left waiting."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import training_pair as pair

from pipeline.models import HeldImages, StreamedImages, TrainedNetwork, TrainingConfig
from pipeline.models.processes import ALONE, Processes

Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return pair.run_pair(tmp_path_factory.mktemp("pair"))


def alone(name: str, config: TrainingConfig = pair.CONFIG, count: int = 101) -> TrainedNetwork:
    return pair.train(name, HeldImages(*pair.make_images(count), 5), config=config)


def same(first: TrainedNetwork, second: TrainedNetwork, rounding: float = 0.0) -> None:
    """The same weights, losses and accuracies, up to rounding."""
    for key, expected in first.state_dict.items():
        torch.testing.assert_close(second.state_dict[key], expected, rtol=rounding, atol=rounding)
    assert [one.loss for one in second.history] == pytest.approx([one.loss for one in first.history], rel=1e-5)
    assert [one.accuracy for one in second.history] == pytest.approx([one.accuracy for one in first.history])
    assert (first.accuracy, first.test_accuracy) == (second.accuracy, second.test_accuracy)


@pytest.mark.parametrize(("name", "config"), [("mnist_cnn2", pair.CONFIG), ("cifar_cnn4", pair.GENTLE)])
def test_two_processes_train_the_network_that_one_trains(found: Found, name: str, config: TrainingConfig) -> None:
    """`cifar_cnn4` has batch norm: its statistics have to be those of the whole batch."""
    for one in found:
        same(alone(name, config), one[name], rounding=1e-4)
        assert (one[name].devices, one[name].precision) == (2, "float32")
    same(found[0][name], found[1][name])


def test_a_batch_with_fewer_images_than_processes_counts_once(found: Found) -> None:
    expected = alone("mnist_cnn2", pair.CONFIG.model_copy(update={"batch_size": 50}), 51)
    assert expected.devices == 1
    same(expected, found[0]["few"], rounding=1e-5)


def test_each_process_reads_its_part_of_streamed_shards_and_sees_all(found: Found) -> None:
    same(pair.train("mnist_cnn2", StreamedImages(pair.shards())), found[0]["streamed"], rounding=1e-4)
    passes = pair.CONFIG.epochs + 2  # one for the mean and deviation, and one for the accuracy
    reads = [one["read"] for one in found]
    assert sorted(reads[0] + reads[1]) == sorted([*range(13)] * passes)
    assert abs(len(reads[0]) - len(reads[1])) <= passes


def test_going_on_from_a_checkpoint_changes_nothing(found: Found) -> None:
    assert [one["checkpoints"] for one in found] == [pair.CONFIG.epochs, 0]
    for one in found:
        same(one["kept"], one["resumed"])


def test_batch_norm_is_that_of_the_whole_batch(found: Found) -> None:
    whole = pair.normalised(pair.norm_inputs(), ALONE)
    for key in ("outputs", "inputs"):
        together = torch.cat([one["norm"][key] for one in found])
        torch.testing.assert_close(together, whole[key], rtol=1e-5, atol=1e-6)
    for key in ("weight", "bias"):
        torch.testing.assert_close(found[0]["norm"][key] + found[1]["norm"][key], whole[key], rtol=1e-5, atol=1e-6)
    for one in found:
        for key in ("running_mean", "running_var"):
            torch.testing.assert_close(one["norm"][key], whole[key], rtol=1e-6, atol=1e-6)


def test_an_error_of_one_process_is_raised_in_all(found: Found) -> None:
    for one in found:
        assert one["failed"] == ["nothing at 24", "nothing at 32", "no space left"]


@pytest.mark.parametrize(("images", "count"), [(16, 3), (3, 3), (7, 4), (1, 1)])
def test_the_shares_of_a_batch_are_all_of_it(images: int, count: int) -> None:
    rows = [Processes(rank, count).share(images).rows for rank in range(count)]
    assert [place for one in rows for place in range(one.start, one.stop)] == list(range(images))
    assert max(one.stop - one.start for one in rows) - min(one.stop - one.start for one in rows) <= 1


def test_of_too_few_images_each_process_takes_all() -> None:
    shares = [Processes(rank, 3).share(2) for rank in range(3)]
    assert all(share.rows == slice(0, 2) for share in shares)
    assert sum(share.counted * 2 for share in shares) == pytest.approx(2)
