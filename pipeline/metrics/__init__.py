"""Metrics of attribution maps: one file a metric, and here the union of all of them."""

from typing import Annotated

from pydantic import Field

from pipeline.metrics.activation_ratio import LeRF, MoRF, PixelPerturbation
from pipeline.metrics.infidelity import Infidelity
from pipeline.metrics.insertion_accuracy import InsertionAccuracy
from pipeline.metrics.insertion_deletion import Deletion, Insertion
from pipeline.metrics.localization import Localization
from pipeline.metrics.mar import MAR
from pipeline.metrics.max_sensitivity import MaxSensitivity
from pipeline.metrics.perturbation_curve import PerturbationCurve
from pipeline.metrics.pointing import Pointing
from pipeline.metrics.runtime import Runtime
from pipeline.metrics.sanity_labels import SanityLabels
from pipeline.metrics.sanity_parameters import SanityParameters

METRICS = (
    Deletion,
    Insertion,
    InsertionAccuracy,
    MoRF,
    LeRF,
    PixelPerturbation,
    PerturbationCurve,
    MAR,
    Pointing,
    Localization,
    Infidelity,
    MaxSensitivity,
    Runtime,
    SanityParameters,
    SanityLabels,
)

MetricConfig = Annotated[
    Deletion
    | Insertion
    | InsertionAccuracy
    | MoRF
    | LeRF
    | PixelPerturbation
    | PerturbationCurve
    | MAR
    | Pointing
    | Localization
    | Infidelity
    | MaxSensitivity
    | Runtime
    | SanityParameters
    | SanityLabels,
    Field(discriminator="name"),
]

__all__ = [
    "MAR",
    "METRICS",
    "Deletion",
    "Infidelity",
    "Insertion",
    "InsertionAccuracy",
    "LeRF",
    "Localization",
    "MaxSensitivity",
    "MetricConfig",
    "MoRF",
    "PerturbationCurve",
    "PixelPerturbation",
    "Pointing",
    "Runtime",
    "SanityLabels",
    "SanityParameters",
]
