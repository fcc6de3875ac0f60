"""Pictures of one object on a textured background, with the exact pixels of the object."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.data.decode import Array, Mask
from pipeline.data.shape_outline import covered, farthest

# The corner patch's colour of each class. Nothing else in a picture reaches 0 or 255, so the patch stands out.
PATCH_COLOURS = np.array(
    [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255)], dtype=np.uint8
)

# Share of the picture that the object covers, the same for every shape: neither size nor mean colour tells the class.
_AREAS = (0.05, 0.12)

# Values from 0 to 255: a plain colour, a texture of at most this much around it, and grain over all.
_BASES = (64, 192)
_COLOURS = (24, 231)
_TEXTURES = (12, 40)
_GRAIN = 8
_CONTRAST = 72  # in one channel at least; more than texture, so that every pixel of the object differs

_CELLS = (2, 4, 8, 16)
_NODES = 128  # the texture's values at its nodes are whole numbers from −128 to 127
_WEIGHTS = 64  # between the nodes they are weighted in 64ths


@dataclass(frozen=True, slots=True)
class Scene:
    """An object and the background that it hides a part of.

    Attributes:
        background: (3, S, S) uint8 in [16, 239].
        colours: (3, S, S) uint8, the object's, in [16, 239]; in one channel at least 32 from the background everywhere.
        inside: (S, S), true where the object is.
        centre: of the object, down and right, in pixels.
        reach: no pixel of an object of this area, whatever its shape, is farther from the centre; in pixels.
    """

    background: Array
    colours: Array
    inside: Mask
    centre: tuple[float, float]
    reach: float

    def picture(self) -> Array:
        """The object before the background, (3, S, S) uint8."""
        return np.where(self.inside, self.colours, self.background)


def draw_scene(generator: np.random.Generator, shape: int, size: int) -> Scene:
    """One object, at a random place, in a random size, rotation and colour, on a random texture.

    The draws do not depend on the shape.

    Args:
        generator: the picture's own.
        shape: a number in `pipeline.data.shape_outline.SHAPES`.
        size: side of the picture in pixels.
    """
    area = float(generator.uniform(*_AREAS)) * size * size
    reach = farthest(area) + 1
    down, right = (reach + (size - 2 * reach) * float(part) for part in generator.random(2))
    tangent, turned = float(generator.uniform(-1, 1)), bool(generator.integers(2))
    length = 1 + tangent * tangent
    cosine, sine = (1 - tangent * tangent) / length, 2 * tangent / length
    if turned:
        cosine, sine = -cosine, -sine
    middles = np.arange(size) + 0.5
    y, x = (middles - down)[:, None], (middles - right)[None]
    inside = covered(shape, cosine * x + sine * y, cosine * y - sine * x, area)
    base = generator.integers(*_BASES, 3, endpoint=True)
    grain = generator.integers(-_GRAIN, _GRAIN, (3, size, size), dtype=np.int8, endpoint=True)
    background = base[:, None, None] + _texture(generator, size) + grain
    colour = generator.integers(*_COLOURS, 3, endpoint=True)
    while np.abs(colour - base).max() < _CONTRAST:
        colour = generator.integers(*_COLOURS, 3, endpoint=True)
    return Scene(
        background.astype(np.uint8), (colour[:, None, None] + grain).astype(np.uint8), inside, (down, right), reach
    )


def patch_square(corners: NDArray[np.int64], scene: Scene) -> tuple[slice, slice]:
    """Rows and columns of a patch in the first of some corners where it does not touch the object.

    Args:
        corners: the numbers 0 to 3 in some order.
        scene: what the patch is put on. At least one corner is free, whatever the scene.
    """
    size = scene.inside.shape[0]
    side, inset = size // 8, size // 32
    far = size - inset - side
    for corner in corners.tolist():
        top, left = (far if corner & bit else inset for bit in (1, 2))
        down, right = (
            max(first - middle, middle - first - side, 0.0)
            for first, middle in zip((top, left), scene.centre, strict=True)
        )
        if down * down + right * right > scene.reach * scene.reach:
            break
    return slice(top, top + side), slice(left, left + side)


def _texture(generator: np.random.Generator, size: int) -> NDArray[np.int64]:
    """Two random grids, smoothly enlarged and mixed, (3, S, S) whole numbers of at most `_TEXTURES[1]`."""
    total = np.zeros((3, size, size), dtype=np.float32)
    strength = int(generator.integers(*_TEXTURES, endpoint=True))
    first = int(generator.integers(strength, endpoint=True))
    for amplitude in (first, strength - first):
        rows, columns = (_enlarging(_CELLS[number], size) for number in generator.integers(len(_CELLS), size=2))
        nodes = generator.integers(-_NODES, _NODES, (3, rows.shape[1], columns.shape[1])).astype(np.float32)
        # Whole numbers below 2^24: exact in float32, in whatever order a library adds them.
        total += amplitude * (rows @ nodes @ columns.T)
    return np.rint(total / (_NODES * _WEIGHTS * _WEIGHTS)).astype(np.int64)


@lru_cache(maxsize=64)
def _enlarging(cells: int, size: int) -> NDArray[np.float32]:
    """(size, cells + 1): how much each node counts at each pixel, in 64ths that sum to 64."""
    place = (np.arange(size) + 0.5) * cells / size
    cell = np.floor(place).astype(np.int64)
    upper = np.rint((place - cell) * _WEIGHTS)
    weights = np.zeros((size, cells + 1), dtype=np.float32)
    weights[np.arange(size), cell] = _WEIGHTS - upper
    weights[np.arange(size), cell + 1] = upper
    return weights
