"""Scores of several methods side by side, sample by sample, from the committed rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.stages.summarise import Summary
from pipeline.store import Output


@dataclass(frozen=True, slots=True)
class SampleScores:
    """One measure of the methods of one model.

    Attributes:
        model, metric, measure: what was measured.
        higher_is_better: which way the measure points.
        methods: k ids.
        positions: samples of which at least one method has a value, (n,) int64, ascending.
        values: (n, k) float32, NaN where a method has no value.
    """

    model: str
    metric: str
    measure: str
    higher_is_better: bool
    methods: tuple[str, ...]
    positions: NDArray[np.int64]
    values: NDArray[np.float32]

    @property
    def gains(self) -> NDArray[np.float32]:
        """The values, turned so that higher is better."""
        return self.values if self.higher_is_better else -self.values

    def complete(self, methods: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The samples on which all of some methods have a value.

        Args:
            methods: some of `methods`, k of them.

        Returns:
            Positions (n,) and gains (n, k), the methods in the order asked for.
        """
        gains = self.gains[:, [self.methods.index(method) for method in methods]]
        whole = ~np.isnan(gains).any(axis=1)
        return self.positions[whole], gains[whole]


def read_sample_scores(
    output: Output, summary: Sequence[Summary], variants: Mapping[tuple[str, str, str], tuple[str, int]]
) -> list[SampleScores]:
    """The committed scores behind a summary, one entry a model and measure.

    Args:
        output: where the rows are.
        summary: what was measured; gives the order of methods and of measures.
        variants: by model, method and metric, the folder of the rows and how many positions of it count.

    Returns:
        In the order of the summary. A method whose rows are gone is left out; so is a measure without any.
    """
    found = []
    for model, metric in dict.fromkeys((one.model, one.metric) for one in summary):
        mine = [one for one in summary if (one.model, one.metric) == (model, metric)]
        tables = {}
        for method in dict.fromkeys(one.method for one in mine):
            path, total = variants.get((model, method, metric), ("", 0))
            table = output.read(path, 0, total, ["position", "measure", "value"]) if path else None
            if table is not None:
                tables[method] = table.set_column(1, "measure", table["measure"].cast("string"))
        for measure, higher in dict.fromkeys((one.measure, one.higher_is_better) for one in mine):
            methods = [one.method for one in mine if one.measure == measure and one.method in tables]
            if methods:
                positions, values = _side_by_side([_column(tables[method], measure) for method in methods])
                found.append(SampleScores(model, metric, measure, higher, tuple(methods), positions, values))
    return found


def _column(table: pa.Table, measure: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Positions and values of a measure, where there is a value."""
    rows = table.filter(pc.and_(pc.equal(table["measure"], measure), pc.is_valid(table["value"])))
    return rows["position"].to_numpy(), rows["value"].to_numpy()


def _side_by_side(
    columns: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    union = np.unique(np.concatenate([positions for positions, _ in columns]))
    values = np.full((len(union), len(columns)), np.nan, np.float32)
    for place, (positions, own) in enumerate(columns):
        values[np.searchsorted(union, positions), place] = own
    return union, values
