"""What the rooms hand each other: configurations, batches, and the contracts of methods and metrics."""

from pipeline.contracts.base import (
    Batch,
    Calibration,
    Config,
    Cost,
    ExplainedOutput,
    Reduction,
    Segmentation,
    Setting,
    SharedWork,
    Target,
    digest,
)
from pipeline.contracts.method import AttributionMethod, Explanation, SharingMethod
from pipeline.contracts.metric import Context, Metric, Scores

__all__ = [
    "AttributionMethod",
    "Batch",
    "Calibration",
    "Config",
    "Context",
    "Cost",
    "ExplainedOutput",
    "Explanation",
    "Metric",
    "Reduction",
    "Scores",
    "Segmentation",
    "Setting",
    "SharedWork",
    "SharingMethod",
    "Target",
    "digest",
]
