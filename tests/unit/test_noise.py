"""Random numbers belong to the sample."""

import numpy as np
import torch

from pipeline.noise import Noise


def test_a_draw_does_not_depend_on_its_batch() -> None:
    together = Noise(3).normal("s", ["a", "b", "c"], (2, 2))
    assert torch.equal(together[1:2], Noise(3).normal("s", ["b"], (2, 2)))


def test_each_part_of_the_key_gives_other_numbers() -> None:
    first = Noise(0).uniform("s", ["a"], (8,))
    others = [
        Noise(1).uniform("s", ["a"], (8,)),
        Noise(0).uniform("t", ["a"], (8,)),
        Noise(0).uniform("s", ["b"], (8,)),
        Noise(0).uniform("s", ["a"], (8,), draw=1),
    ]
    assert not any(torch.equal(first, other) for other in others)


def test_numbers_are_pinned() -> None:
    # A change here changes every stored random result: it needs a revision and a line in CHANGELOG.
    assert [round(value, 6) for value in Noise(0).uniform("s", ["a"], (3,))[0].tolist()] == PINNED


def test_drawing_leaves_global_state_alone() -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    Noise(0).normal("s", ["a"], (4,))
    Noise(0).choice("s", "a", range(9), 3)
    assert torch.equal(before, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()


def test_choice_takes_distinct_members() -> None:
    picked = Noise(0).choice("s", "a", [10, 20, 30, 40], 4)
    assert sorted(picked) == [10, 20, 30, 40]


PINNED = [0.085995, 0.167928, 0.767682]
