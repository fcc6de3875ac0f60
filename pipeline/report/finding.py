"""What the scores of a run say beyond means: differences, ranks, agreement."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.noise import Noise
from pipeline.report.record import RunRecord
from pipeline.stages.agreement import Agreement, agree
from pipeline.stages.comparison import Comparison, compare
from pipeline.stages.ranking import Rank, rank_methods
from pipeline.stages.sample_score import read_sample_scores
from pipeline.store import Output


@dataclass(frozen=True, slots=True)
class Findings:
    """The findings of a run, each in the order of its summary.

    Attributes:
        comparisons: paired differences between methods.
        ranks: of every method by every measure.
        agreement: of every pair of measures.
    """

    comparisons: tuple[Comparison, ...]
    ranks: tuple[Rank, ...]
    agreement: tuple[Agreement, ...]


def find(output: Output, record: RunRecord) -> Findings:
    """Work the findings out from the committed scores, which the record does not hold.

    Measures whose samples cannot be compared one by one have ranks and agreement by their means alone.

    The same rows give the same findings: resampling draws with the run's seed.
    """
    # In the order of the page: a model after the other, the control last.
    models = {model: place for place, model in enumerate(record.models)}
    methods = {method: place for place, method in enumerate(record.methods)}
    summary = sorted(
        record.summary,
        key=lambda one: (models.get(one.model, len(models)), methods.get(one.method, len(methods))),
    )
    scores = read_sample_scores(output, [one for one in summary if one.by_sample], record.scored)
    by_measure = {(one.model, one.metric, one.measure): one for one in scores}
    noise = Noise(record.seed or 0)
    return Findings(
        comparisons=tuple(pair for one in scores for pair in compare(one, record.control, noise)),
        ranks=tuple(rank_methods(summary, by_measure, record.control)),
        agreement=tuple(agree(summary, by_measure, record.control)),
    )
