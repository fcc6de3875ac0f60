"""Generated objects: exact masks, nothing but shape or patch tells the class, and no shard changes a pixel."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import chi2_contingency
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.data import Dataset, Shapes, Shard, build_index, index_key
from pipeline.data.shape_outline import SHAPES, covered, farthest
from pipeline.data.shape_picture import PATCH_COLOURS, draw_scene
from pipeline.noise import Noise

AREA = 100.0


def opened(config: Shapes) -> Dataset:
    return Dataset(config, build_index(config), seed=0)


def loaded(config: Shapes) -> Shard:
    dataset = opened(config)
    return dataset.load(range(len(dataset)), regions=True)


def patch_classes(shard: Shard) -> np.ndarray:
    """The class whose colour each patch has, read off the pixels."""
    found = []
    for image, patch in zip(shard.images.numpy(), shard.regions["shortcut"].numpy()[:, 0], strict=True):
        (colour,) = np.unique(image[:, patch], axis=1).T
        found.append(int((colour == PATCH_COLOURS).all(axis=1).argmax()))
        assert (PATCH_COLOURS[found[-1]] == colour).all()
    return np.array(found)


def slow_outline(name: str) -> Callable[[float, float], bool]:
    """Whether a point lies in a shape of the area `AREA`: by corners, sines and the even-odd rule."""

    def turn(radius: float, degrees: float) -> tuple[float, float]:
        return radius * math.cos(math.radians(degrees)), radius * math.sin(math.radians(degrees))

    if name in ("circle", "ring"):
        hole = 0.6 if name == "ring" else 0.0
        radius = math.sqrt(AREA / (math.pi * (1 - hole**2)))
        return lambda x, y: hole * radius <= math.hypot(x, y) <= radius
    if name == "square":
        corners = [turn(1, 45 + 90 * k) for k in range(4)]
    elif name == "triangle":
        corners = [turn(1, -90 + 120 * k) for k in range(3)]
    elif name == "star":
        inner = math.cos(math.radians(72)) / math.cos(math.radians(36))
        corners = [turn(1 if k % 2 == 0 else inner, 36 * k) for k in range(10)]
    else:
        quarter = [(3, 1), (1, 1), (1, 3)]
        corners = [
            (x * math.cos(a) - y * math.sin(a), x * math.sin(a) + y * math.cos(a))
            for a in (0, math.pi / 2, math.pi, 3 * math.pi / 2)
            for x, y in quarter
        ]
    following = [*corners[1:], corners[0]]
    area = abs(sum(x * v - y * u for (x, y), (u, v) in zip(corners, following, strict=True))) / 2
    scale = math.sqrt(AREA / area)

    def inside(x: float, y: float) -> bool:
        crossings = 0
        for (ax, ay), (bx, by) in zip(corners, following, strict=True):
            ax, ay, bx, by = (scale * value for value in (ax, ay, bx, by))
            if (ay > y) != (by > y) and x < ax + (y - ay) * (bx - ax) / (by - ay):
                crossings += 1
        return crossings % 2 == 1

    return inside


@pytest.mark.parametrize("name", SHAPES)
def test_an_outline_is_the_slow_one_of_the_same_area(name: str) -> None:
    points = Noise(0).generator("test", name).uniform(-16, 16, (2, 3000))
    found = covered(SHAPES.index(name), points[0], points[1], AREA)
    slow = slow_outline(name)
    assert found.tolist() == [slow(x, y) for x, y in points.T.tolist()]
    middles = np.arange(-16, 16, 0.02) + 0.01
    fine = covered(SHAPES.index(name), middles[None], middles[:, None], AREA)
    assert fine.sum() * 0.02**2 == pytest.approx(AREA, rel=2e-3)
    rows, columns = np.nonzero(fine)
    assert np.hypot(middles[rows], middles[columns]).max() <= farthest(AREA) + 1e-9


@pytest.mark.parametrize("shape", range(6))
def test_the_mask_is_exactly_where_the_picture_differs_from_its_background(shape: int) -> None:
    for number in range(60):
        scene = draw_scene(Noise(1).generator("scene", str(number)), shape, 48)
        differs = (scene.picture() != scene.background).any(axis=0)
        assert np.array_equal(differs, scene.inside)
        apart = np.abs(scene.colours.astype(int) - scene.background).max(axis=0)
        assert apart.min() >= 32
        border = np.concatenate([scene.inside[[0, -1]].ravel(), scene.inside[:, [0, -1]].ravel()])
        assert scene.inside.any() and not border.any()


def test_an_object_has_one_colour_but_for_its_grain() -> None:
    shard = loaded(Shapes(count=60))
    for image, mask in zip(shard.images.numpy(), shard.regions["object"].numpy()[:, 0], strict=True):
        assert np.ptp(image[:, mask].astype(int), axis=1).max() <= 16


def test_classes_take_turns() -> None:
    dataset = opened(Shapes(count=1000))
    assert np.bincount(dataset.labels(0, 1000).numpy()).tolist() == [167] * 4 + [166] * 2
    assert dataset.labels(0, 8).tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert dataset.class_names == SHAPES
    assert dataset.ids(0, 2) == ["shapes/test/00000", "shapes/test/00001"]


def test_an_image_is_the_same_whatever_the_shard_the_count_and_the_order() -> None:
    config = Shapes(count=40, shortcut=0.5)
    whole = loaded(config)
    dataset = opened(config.model_copy(update={"count": 31, "limit": 30}))
    for positions in ([7], [29, 0, 7], list(range(9, 30))):
        part = dataset.load(positions, threads=1, regions=True)
        assert part.images.equal(whole.images[positions])
        assert all(part.regions[name].equal(whole.regions[name][positions]) for name in ("object", "shortcut"))
        assert part.images.equal(dataset.load(positions, threads=4).images)


def test_pixels_are_those_of_this_revision() -> None:
    shard = loaded(Shapes(count=24, shortcut=0.5))
    content = [shard.images, *(shard.regions[name] for name in ("object", "shortcut"))]
    total = hashlib.sha256(b"".join(part.numpy().tobytes() for part in content)).hexdigest()
    assert (Shapes.revision, total[:16]) == (1, "f711be97e8926fce"), "other pixels need another revision"


def test_a_shortcut_changes_its_patch_and_nothing_else() -> None:
    plain, planted = loaded(Shapes(count=120)), loaded(Shapes(count=120, shortcut=1))
    patch = planted.regions["shortcut"]
    assert plain.regions.keys() == {"object"}
    assert (plain.images != planted.images).any(1, keepdim=True).equal(patch)
    assert plain.regions["object"].equal(planted.regions["object"])
    assert patch.flatten(1).sum(1).tolist() == [64] * 120
    assert not (patch & planted.regions["object"]).any()
    assert plain.images.min() > 0 and plain.images.max() < 255


@pytest.mark.parametrize("size", [32, 33, 100])
def test_the_patch_leaves_the_object_alone_at_every_size(size: int) -> None:
    shard = loaded(Shapes(count=300, shortcut=1, size=size))
    assert not (shard.regions["shortcut"] & shard.regions["object"]).any()
    assert set(shard.regions["shortcut"].flatten(1).sum(1).tolist()) == {(size // 8) ** 2}


def test_the_patch_stands_in_every_corner_alike() -> None:
    patches = loaded(Shapes(count=600, shortcut=1)).regions["shortcut"][:, 0]
    corners = [patches[:, rows, columns].flatten(1).any(1).sum().item() for rows in (slice(32), slice(32, 64))
               for columns in (slice(32), slice(32, 64))]  # fmt: skip
    assert sum(corners) == 600
    assert all(abs(count - 150) < 4 * math.sqrt(600 * 0.25 * 0.75) for count in corners)


def test_the_patch_tells_the_class_in_the_share_asked_for() -> None:
    shard = loaded(Shapes(count=1800, size=32, shortcut=0.7))
    told, labels = patch_classes(shard), shard.labels.numpy()
    right = told == labels
    assert abs(right.mean() - 0.7) < 4 * math.sqrt(0.7 * 0.3 / 1800)
    # Where it is wrong it is any of the five others alike.
    others = np.bincount((told - labels)[~right] % 6, minlength=6)
    assert others[0] == 0
    assert (np.abs(others[1:] - others.sum() / 5) < 4 * math.sqrt(others.sum() * 0.2 * 0.8)).all()


@pytest.mark.parametrize("label_from", ["object", "shortcut"])
def test_a_full_shortcut_always_tells_the_class(label_from: str) -> None:
    shard = loaded(Shapes(count=120, size=32, shortcut=1, label_from=label_from))
    assert patch_classes(shard).tolist() == shard.labels.tolist()


def test_the_shape_is_the_class_or_says_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def spy(generator: np.random.Generator, shape: int, size: int) -> object:
        drawn.append(shape)
        return draw_scene(generator, shape, size)

    monkeypatch.setattr("pipeline.data.shapes.draw_scene", spy)
    labels = opened(Shapes(count=1200)).labels(0, 1200).numpy()
    for label_from in ("object", "shortcut"):
        dataset = opened(Shapes(count=1200, size=32, shortcut=1, label_from=label_from))
        drawn.clear()
        dataset.load(range(1200))
        if label_from == "object":
            assert drawn == labels.tolist()
            continue
        table = np.zeros((6, 6))
        np.add.at(table, (labels, drawn), 1)
        assert table.min() > 0
        assert chi2_contingency(table).pvalue > 1e-3


def test_colour_contrast_place_and_area_say_nothing_of_the_class() -> None:
    def features(shard: Shard) -> np.ndarray:
        images, masks = shard.images.numpy() / 255, shard.regions["object"].numpy()[:, 0]
        rows = []
        for image, mask in zip(images, masks, strict=True):
            place = np.argwhere(mask).mean(axis=0)
            rows.append([*image.mean((1, 2)), *image.std((1, 2)), *image[:, mask].mean(1), *place, mask.sum()])
        return np.array(rows)

    train, test = loaded(Shapes(split="train", train_count=2400)), loaded(Shapes(count=1200))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    model.fit(features(train), train.labels.numpy())
    accuracy = model.score(features(test), test.labels.numpy())
    assert accuracy < 1 / 6 + 4 * math.sqrt(1 / 6 * 5 / 6 / 1200)


def test_the_training_split_has_images_of_its_own() -> None:
    config = Shapes(count=12, train_count=18, shortcut=0.5, limit=3, sample=5, classes=("star",))
    split = config.training_split()
    assert split == Shapes(split="train", count=12, train_count=18, shortcut=0.5, classes=("star",))
    assert len(build_index(split)) == 18
    every, train = loaded(Shapes(count=12)), loaded(Shapes(split="train", train_count=12))
    assert not (every.images == train.images).flatten(1).all(1).any()


def test_everything_that_is_drawn_enters_the_fingerprint() -> None:
    configs = [
        Shapes(),
        Shapes(generator_seed=1),
        Shapes(shortcut=0.5),
        Shapes(shortcut=1),
        Shapes(shortcut=1, label_from="shortcut"),
        Shapes(size=32),
        Shapes(count=999),
        Shapes(split="train", train_count=1000),
    ]
    assert len({opened(config).fingerprint for config in configs}) == len(configs)
    assert len({index_key(config) for config in configs}) == len(configs)
    assert opened(Shapes()).fingerprint == opened(Shapes(limit=5)).fingerprint


def test_regions_go_through_resize_and_crop_with_the_image() -> None:
    config = Shapes(count=40, shortcut=1, resize=80, crop=72, interpolation="nearest")
    shard = loaded(config)
    assert shard.images.shape == (40, 3, 72, 72)
    # Nearest pixels are stored pixels, so that the patch keeps its one colour and the object its narrow range.
    assert patch_classes(shard).tolist() == shard.labels.tolist()
    beside = loaded(config.model_copy(update={"shortcut": 0.0}))
    assert (beside.images != shard.images).any(1, keepdim=True).equal(shard.regions["shortcut"])
    for image, mask in zip(shard.images.numpy(), shard.regions["object"].numpy()[:, 0], strict=True):
        assert np.ptp(image[:, mask].astype(int), axis=1).max() <= 16
    wide = config.model_copy(update={"interpolation": "bilinear"})
    assert loaded(wide).regions["object"].equal(shard.regions["object"])


def test_a_label_from_the_shortcut_needs_one() -> None:
    with pytest.raises(ValidationError, match="set shortcut: 1"):
        Shapes(label_from="shortcut")
