"""The outlines of six shapes.

They are drawn with +, −, ×, ÷ and √ alone, whose results IEEE 754 fixes: a sine that differs in its last bit from one
machine to the next would move a pixel across an edge.
"""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
from numpy.typing import NDArray

from pipeline.data.decode import Array, Mask

Coordinate = NDArray[np.float64]

SHAPES = ("circle", "square", "triangle", "cross", "ring", "star")

_HOLE = 0.6  # radius of the ring's hole, in outer radii
_ARM = 1 / 3  # width of the cross's arms, in its width

_ROOT = sqrt(5.0)
_SLOPE = sqrt(3.0) / 2
# Normals of the lines that bound a shape.
_SQUARE = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))
_TRIANGLE = ((0.0, 1.0), (_SLOPE, -0.5), (-_SLOPE, -0.5))
_FIFTH = ((_ROOT - 1) / 4, sqrt(10 + 2 * _ROOT) / 4)  # cosine and sine of 72°
_TWO_FIFTHS = (-(_ROOT + 1) / 4, sqrt(10 - 2 * _ROOT) / 4)  # of 144°
_PENTAGON = ((1.0, 0.0), _FIFTH, _TWO_FIFTHS, (_TWO_FIFTHS[0], -_TWO_FIFTHS[1]), (_FIFTH[0], -_FIFTH[1]))
# Of a pentagram whose points are 1 from its centre: ten triangles, each with sides 1 and (3 − √5)/2 at 36°.
_STAR_AREA = 5 * sqrt(10 - 2 * _ROOT) / 4 * (3 - _ROOT) / 2


def covered(shape: int, u: Coordinate, v: Coordinate, area: float) -> Mask:
    """Which points a shape covers, its edge included.

    Args:
        shape: a number in `SHAPES`.
        u, v: coordinates of the points from the shape's centre, in arrays that broadcast together.
        area: of the shape, in the coordinates' unit squared.
    """
    return _COVERED[SHAPES[shape]](u, v, area)


def farthest(area: float) -> float:
    """How far from its centre any shape of an area reaches: the star's points lie out farthest."""
    return sqrt(area / _STAR_AREA)


def _behind(u: Coordinate, v: Coordinate, normals: tuple[tuple[float, float], ...], distance: float) -> Array:
    """How many of some lines, all at one distance from the centre, have each point on the centre's side."""
    count = np.zeros(np.broadcast_shapes(u.shape, v.shape), dtype=np.uint8)
    for across, along in normals:
        count += across * u + along * v <= distance
    return count


def _circle(u: Coordinate, v: Coordinate, area: float) -> Mask:
    return np.asarray(u * u + v * v <= area / pi)


def _square(u: Coordinate, v: Coordinate, area: float) -> Mask:
    return np.asarray(_behind(u, v, _SQUARE, sqrt(area) / 2) == 4)


def _triangle(u: Coordinate, v: Coordinate, area: float) -> Mask:
    return np.asarray(_behind(u, v, _TRIANGLE, sqrt(area / (3 * sqrt(3.0)))) == 3)


def _cross(u: Coordinate, v: Coordinate, area: float) -> Mask:
    half = sqrt(area / (_ARM * (2 - _ARM))) / 2
    u, v = np.abs(u), np.abs(v)
    return ((u <= half) & (v <= _ARM * half)) | ((v <= half) & (u <= _ARM * half))


def _ring(u: Coordinate, v: Coordinate, area: float) -> Mask:
    outer = area / (pi * (1 - _HOLE * _HOLE))
    squared = u * u + v * v
    return (squared <= outer) & (squared >= _HOLE * _HOLE * outer)


def _star(u: Coordinate, v: Coordinate, area: float) -> Mask:
    # A point of a pentagram lies beyond one of its five lines at most.
    return np.asarray(_behind(u, v, _PENTAGON, sqrt(area / _STAR_AREA) * _FIFTH[0]) >= 4)


_COVERED = dict(zip(SHAPES, (_circle, _square, _triangle, _cross, _ring, _star), strict=True))
