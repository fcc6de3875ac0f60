"""Generated objects with their true masks, and shortcuts planted on purpose: ground truth without a download."""

from __future__ import annotations

import json
from typing import ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, PositiveInt, model_validator

from pipeline.data.decode import Array, Mask, Pixels, Size, fit_arrays
from pipeline.data.region import RegionBlock, StoredMask
from pipeline.data.shape_outline import SHAPES
from pipeline.data.shape_picture import PATCH_COLOURS, draw_scene, patch_square
from pipeline.data.source import LARGEST_SIDE, Listing, SourceConfig, Split
from pipeline.noise import Noise


class Shapes(SourceConfig):
    """Circles, squares, triangles, crosses, rings and stars on textured backgrounds, one object an image.

    Place, size, rotation and colour of the object and the texture behind it vary, and say nothing of the class; all
    shapes cover as many pixels on average. The region `object` is the object's pixels exactly.

    With a shortcut, every image also has a small patch, the region `shortcut`, in a corner that the object leaves free.
    In that share of the images it has the colour of the image's class (red, green, blue, yellow, magenta, cyan), in the
    others that of another class; at 1/6 it says nothing. Under `label_from: shortcut` the object's shape is drawn at
    random, so that a model can tell the class from the patch alone.

    The classes take turns. Image n of a split is the same whatever the counts, and the same but for its patch whatever
    the shortcut. An id is `shapes/<split>/<number>`.
    """

    revision: ClassVar[int] = 1
    source: Literal["shapes"] = "shapes"
    split: Split = Field("test", description="which part: each has images of its own")
    count: PositiveInt = Field(1000, description="images of the test split")
    train_count: PositiveInt = Field(6000, description="images of the training split")
    size: int = Field(64, ge=32, le=LARGEST_SIDE, description="side of the images in pixels")
    shortcut: float = Field(
        0.0, ge=0, le=1, description="share of images whose corner patch tells the class; 0: no image has a patch"
    )
    label_from: Literal["object", "shortcut"] = Field(
        "object", description="what the class is: the object's shape, or what the patch tells"
    )
    generator_seed: int = Field(0, ge=0, description="of the images; the job's seed has no part in them")

    @model_validator(mode="after")
    def _label_is_told(self) -> Self:
        if self.label_from == "shortcut" and not self.shortcut:
            raise ValueError("label_from: shortcut needs a shortcut, and there is none; set shortcut: 1")
        return self

    def listing(self) -> Listing:
        """The split's images by number."""
        numbers = np.arange(self.count if self.split == "test" else self.train_count, dtype=np.int64)
        drawn = [self.revision, self.split, self.size, self.shortcut, self.label_from, self.generator_seed]
        return Listing(
            ids=pa.array([f"shapes/{self.split}/{number:05d}" for number in numbers]),
            labels=pa.array(numbers % len(SHAPES)),
            classes=len(SHAPES),
            class_names=SHAPES,
            locator={"number": pa.array(numbers)},
            content=json.dumps(drawn).encode(),
        )

    def state(self) -> object:
        """The source's revision: all else is in the configuration."""
        return self.revision

    def read(self, rows: pa.Table, size: Size | None, threads: int) -> Pixels:
        """The images, drawn; see `SourceConfig.read`."""
        del threads
        return fit_arrays(self._draw(rows)[0], self.geometry, size)

    def regions(self) -> tuple[str, ...]:
        """The object and, where there is one, the shortcut."""
        return ("object", "shortcut") if self.shortcut else ("object",)

    def read_with_regions(self, rows: pa.Table, size: Size | None, threads: int) -> Pixels:
        """The images and their regions, drawn; see `SourceConfig.read_with_regions`."""
        del threads
        planes, objects, patches = self._draw(rows)
        drawn = {"object": objects, "shortcut": patches}
        block = RegionBlock({name: _stored(drawn[name]) for name in self.regions()}, self.geometry)
        pixels = fit_arrays(planes, self.geometry, size)
        for row in range(len(planes)):
            if row not in pixels.reasons:
                block.add(row, (self.size, self.size))
        return block.joined(pixels)

    def training_split(self) -> Self:
        """Images of their own, with the same shortcut."""
        return self._unselected(split="train")

    def _draw(self, rows: pa.Table) -> tuple[Array, Mask, Mask]:
        """(n, 3, S, S) images, and (n, S, S) where their object and their patch are."""
        numbers: list[int] = rows["number"].to_pylist()
        planes = np.empty((len(numbers), 3, self.size, self.size), dtype=np.uint8)
        objects, patches = (np.zeros((len(numbers), self.size, self.size), dtype=np.bool_) for _ in range(2))
        for row, number in enumerate(numbers):
            generator = Noise(self.generator_seed).generator("shapes", f"{self.split}/{number}")
            label = number % len(SHAPES)
            tells, other = generator.random() < self.shortcut, int(generator.integers(1, len(SHAPES)))
            unrelated, corners = int(generator.integers(len(SHAPES))), generator.permutation(4)
            scene = draw_scene(generator, label if self.label_from == "object" else unrelated, self.size)
            planes[row], objects[row] = scene.picture(), scene.inside
            if self.shortcut:
                square = patch_square(corners, scene)
                told = label if tells else (label + other) % len(SHAPES)
                planes[row][:, *square] = PATCH_COLOURS[told][:, None, None]
                patches[row][square] = True
        return planes, objects, patches


def _stored(masks: Mask) -> StoredMask:
    return lambda row, _: masks[row]
