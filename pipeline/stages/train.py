"""Train: weights made from the data set's training split, an artefact like any other."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import ClassVar

import pyarrow as pa

from pipeline.data import Dataset, Failure, Shard
from pipeline.errors import FatalError, ShardError
from pipeline.models import permuted_labels, train_network
from pipeline.stages.stage import Outcome, Surroundings
from pipeline.stages.variant import Unit, Variant
from pipeline.store import Output

SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("id", pa.string()),
        ("file", pa.string()),
        ("accuracy", pa.float32()),
        ("seconds", pa.float32()),
        ("left_out", pa.int32()),
        (
            "history",
            pa.list_(pa.struct([("number", pa.int32()), ("loss", pa.float32()), ("accuracy", pa.float32())])),
        ),
    ]
)


class Train:
    """One unit: a network trained on the whole training split, with its labels or with permuted ones.

    Its row names the safetensors file, and counts the samples that training left out. The accuracy is that on the
    labels trained with: of permuted ones it says how far the network has learned them by heart. A network for permuted
    labels starts from other weights than the model's own training, since two networks with one start may be alike
    without having learned the same.
    """

    revision: ClassVar[int] = 1

    def load(self, around: Surroundings, variant: Variant, unit: Unit) -> Shard:
        """The training split, decoded; samples that cannot be decoded, or have no label, are left out."""
        job = around.job
        if job.training is None or job.training_index is None:
            raise ShardError(f"{variant.path}: the data set has no training split")
        dataset = Dataset(job.training, around.output.open_table(job.training_index), job.seed)
        return dataset.load(range(len(dataset)))

    def compute(self, around: Surroundings, variant: Variant, inputs: Shard) -> Outcome:
        """One row of `SCHEMA`, and the weights' file."""
        config = around.job.models[variant.model]
        known = inputs.labels >= 0
        if not len(inputs.labels):
            raise FatalError(f"{variant.model}: {_why_none(inputs.failures)}")
        if not known.any():
            raise FatalError(f"{variant.model}: no sample of the training split has a label")
        labels, seed = inputs.labels[known], around.job.seed
        if variant.permuted:
            labels = permuted_labels(labels, around.noise)
            seed = int(around.noise.generator("permuted_training", "").integers(2**62))
        trained = train_network(
            config.name,
            inputs.images[known],
            labels,
            classes=variant.classes or around.job.classes,
            config=variant.training or config.training_settings(),
            mean=config.mean,
            std=config.std,
            seed=seed,
            device=around.device,
        )
        content = trained.to_bytes()
        file = f"weights-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
        row = {
            "position": 0,
            "id": variant.model,
            "file": file,
            "accuracy": trained.accuracy,
            "seconds": trained.seconds,
            "left_out": len(inputs.failures) + int((~known).sum()),
            "history": [asdict(epoch) for epoch in trained.history],
        }
        return Outcome(pa.Table.from_pylist([row], schema=SCHEMA), (), (variant.model,), {file: content})


def _why_none(failures: Sequence[Failure]) -> str:
    reasons = Counter(one.reason for one in failures)
    if not reasons:
        return "the training split has no sample"
    reason, count = reasons.most_common(1)[0]
    return f"no image of the training split can be used: {reason} ({count:,} of {len(failures):,})"


def trained_weights(output: Output, variant: str) -> bytes:
    """The safetensors file of a committed training.

    Raises:
        ShardError: nothing is committed.
    """
    table = output.read(variant)
    if table is None:
        raise ShardError(f"{variant}: no trained weights")
    return output.read_bytes(f"{variant}/{table['file'][0].as_py()}")
