"""scikit-learn's handwritten digits: embedded in the library, so that a first run needs no network."""

from __future__ import annotations

from functools import cache
from typing import ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from pipeline.data.decode import Array, Pixels, Size, fit_arrays
from pipeline.data.source import Listing, SourceConfig, Split

_EVERY = 5
_ENLARGED = 4
_BRIGHTEST = 16


class Digits(SourceConfig):
    """1,797 handwritten digits, 8 x 8 grey, shown as 32 x 32 RGB with each pixel repeated.

    Every fifth sample is a test sample (360), the others are for training (1,437). An id is the number in
    scikit-learn's order: `digits/0005`.

    Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, as in sklearn.datasets.
    """

    revision: ClassVar[int] = 1
    source: Literal["digits"] = "digits"
    split: Split = Field("test", description="which part: every fifth sample is a test sample")

    def listing(self) -> Listing:
        """The split's digits in scikit-learn's order."""
        _, labels = _digits()
        numbers = np.arange(len(labels))
        numbers = numbers[(numbers % _EVERY == 0) == (self.split == "test")]
        return Listing(
            ids=pa.array([f"digits/{number:04d}" for number in numbers]),
            labels=pa.array(labels[numbers]),
            classes=10,
            class_names=tuple(str(digit) for digit in range(10)),
            locator={"number": pa.array(numbers, pa.int32())},
            content=f"digits {self.revision}".encode(),
        )

    def state(self) -> object:
        """The source's revision: the file comes with the library."""
        return self.revision

    def read(self, rows: pa.Table, size: Size | None, threads: int) -> Pixels:
        """The images, enlarged; see `SourceConfig.read`."""
        del threads
        images, _ = _digits()
        chosen = images[rows["number"].to_numpy()]
        enlarged = chosen.repeat(_ENLARGED, axis=1).repeat(_ENLARGED, axis=2)
        return fit_arrays(np.broadcast_to(enlarged[:, None], (len(enlarged), 3, 32, 32)), self.geometry, size)

    def training_split(self) -> Self:
        """The 1,437 training digits."""
        return self._unselected(split="train")


@cache
def _digits() -> tuple[Array, NDArray[np.int64]]:
    """(1797, 8, 8) uint8 in [0, 255] and (1797,) int64."""
    # scikit-learn takes three seconds to import, and no other source wants it.
    from sklearn.datasets import load_digits  # noqa: PLC0415

    data = load_digits()
    return np.rint(data.images * (255 / _BRIGHTEST)).astype(np.uint8), data.target.astype(np.int64)
