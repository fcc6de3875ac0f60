"""What a run was: data set, models and how well they do, time, what went wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow.compute as pc

from pipeline.data import Dataset
from pipeline.report.cost import duration
from pipeline.report.record import LostUnit, RunRecord
from pipeline.store import Output

SHOWN_FAILURES = 20

# What each metric tells, for the line above the table.
_STATUS = {
    "running": "This run has not ended; the page shows what is committed so far.",
    "stopped": "This run was stopped before its end; the same command finishes it. "
    "The page shows what is committed so far.",
    "failed": "This run ended with failures, listed below; the figures cover the samples that have them.",
}

_NO_FIGURES = {
    "running": "the scores are summarised when the run ends.",
    "stopped": "the run was stopped before its scores were summarised. Run the same command again to finish it.",
}


@dataclass(frozen=True, slots=True)
class ModelFact:
    """How often a model is right on the run's samples.

    Attributes:
        model: its id.
        correct: samples whose label it predicts.
        labelled: samples that have a prediction and a label.
        predicted: samples that have a prediction.
    """

    model: str
    correct: int
    labelled: int
    predicted: int

    @property
    def accuracy(self) -> str:
        """Top-1 accuracy in words."""
        if not self.labelled:
            return "accuracy unknown (no labels)" if self.predicted else "no predictions yet"
        return f"top-1 {100 * self.correct / self.labelled:.1f} % of {self.labelled:,}"


@dataclass(frozen=True, slots=True)
class Failures:
    """Samples that could not be done.

    Attributes:
        stages: how many by stage, in the order of stages.
        shown: stage, id and reason of the first ones.
        total: how many there are.
        lost: units that were given up.
    """

    stages: tuple[tuple[str, int], ...]
    shown: tuple[tuple[str, str, str], ...]
    total: int
    lost: tuple[LostUnit, ...]


def model_facts(output: Output, record: RunRecord) -> list[ModelFact]:
    """How well each model does, from its committed predictions."""
    facts = []
    for one in record.of_stage("predict"):
        table = output.read(one.path, 0, one.total, ["correct"])
        correct = table["correct"].drop_null() if table is not None else []
        facts.append(
            ModelFact(
                model=one.model,
                correct=int(pc.sum(correct).as_py() or 0) if len(correct) else 0,
                labelled=len(correct),
                predicted=table.num_rows if table is not None else 0,
            )
        )
    return facts


def failures(output: Output, record: RunRecord) -> Failures:
    """Every failed sample of the run's variants, and its lost units."""
    totals = {one.path: one.total for one in record.variants}
    rows = []
    for path, total in totals.items():
        found = output.failures([path]).to_pylist()
        rows += [row for row in found if not total or row["position"] < total]
    return Failures(
        stages=tuple(Counter(row["stage"] for row in rows).items()),
        shown=tuple((row["stage"], row["id"], row["reason"]) for row in rows[:SHOWN_FAILURES]),
        total=len(rows),
        lost=record.lost,
    )


def no_figures_note(record: RunRecord) -> str:
    """Why there is no table."""
    return _NO_FIGURES.get(record.status, "this run has no metrics, or none of its scores could be computed.")


def status_note(record: RunRecord) -> str:
    """A sentence where the run is not simply done; else nothing."""
    return _STATUS.get(record.status, "")


def facts_line(record: RunRecord, dataset: Dataset) -> list[str]:
    """The run in a few short pieces: data set, samples, size, seed, date, time taken."""
    source = str(record.dataset.get("source", "unknown data set"))
    split = record.dataset.get("split")
    pieces = [
        f"{source} ({split})" if split else source,
        f"{record.samples or len(dataset):,} samples",
        f"{dataset.height} × {dataset.width} pixels",
    ]
    if dataset.classes:
        pieces.append(f"{dataset.classes:,} classes")
    if record.seed is not None:
        pieces.append(f"seed {record.seed}")
    if started := utc_time(record.started):
        pieces.append(f"{started:%d %B %Y, %H:%M} UTC".lstrip("0"))
    if record.seconds is not None and record.status != "running":
        pieces.append(f"took {duration(record.seconds)}")
    return pieces


def selection_note(record: RunRecord) -> str:
    """Which samples are explained, where the spec does not take all."""
    return {
        "correct": "Only samples that a model classifies correctly are explained.",
        "correct_for_all_models": "Only samples that every model classifies correctly are explained.",
    }.get(str(record.dataset.get("select", "all")), "")


def utc_time(text: str | None) -> datetime | None:
    """An ISO time in UTC; None where there is none, or it cannot be read."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else found
