"""Metrics of attribution maps: one file a metric, and here the union of all of them."""

from typing import Annotated

from pydantic import Field

from pipeline.metrics.insertion_deletion import Deletion, Insertion
from pipeline.metrics.mar import MAR

METRICS = (Deletion, Insertion, MAR)

MetricConfig = Annotated[Deletion | Insertion | MAR, Field(discriminator="name")]

__all__ = ["MAR", "METRICS", "Deletion", "Insertion", "MetricConfig"]
