"""Attribution methods: one file a method, and here the union of all of them."""

from typing import Annotated

from pydantic import Field

from pipeline.methods.ablation_cam import AblationCam
from pipeline.methods.agi import AGI
from pipeline.methods.captum import Captum
from pipeline.methods.deeplift import DeepLift
from pipeline.methods.dynamic_ablation import DynamicAblation
from pipeline.methods.extremal_perturbation import ExtremalPerturbation
from pipeline.methods.full_grad import FullGrad
from pipeline.methods.grad_cam import GradCam
from pipeline.methods.gradient import Gradient, GradientXInput
from pipeline.methods.guided_backprop import GuidedBackprop
from pipeline.methods.guided_grad_cam import GuidedGradCam
from pipeline.methods.integrated_gradients import IntegratedGradients
from pipeline.methods.learned_propagation import LearnedPropagation
from pipeline.methods.lrp import LRPEpsilon
from pipeline.methods.meaningful_perturbation import MeaningfulPerturbation
from pipeline.methods.occlusion import Occlusion
from pipeline.methods.prune_grad import PruneGrad
from pipeline.methods.prune_pgd import PrunePGD
from pipeline.methods.random import Random
from pipeline.methods.rectgrad import RectGrad
from pipeline.methods.rise import Rise
from pipeline.methods.score_cam import ScoreCam
from pipeline.methods.smoothgrad import SmoothGrad, SmoothGradSquared

METHODS = (
    Random,
    Gradient,
    GradientXInput,
    IntegratedGradients,
    SmoothGrad,
    SmoothGradSquared,
    DeepLift,
    LRPEpsilon,
    GradCam,
    GuidedBackprop,
    GuidedGradCam,
    RectGrad,
    AGI,
    DynamicAblation,
    LearnedPropagation,
    PruneGrad,
    PrunePGD,
    Rise,
    Occlusion,
    ExtremalPerturbation,
    MeaningfulPerturbation,
    ScoreCam,
    AblationCam,
    FullGrad,
    Captum,
)

Method = Annotated[
    Random
    | Gradient
    | GradientXInput
    | IntegratedGradients
    | SmoothGrad
    | SmoothGradSquared
    | DeepLift
    | LRPEpsilon
    | GradCam
    | GuidedBackprop
    | GuidedGradCam
    | RectGrad
    | AGI
    | DynamicAblation
    | LearnedPropagation
    | PruneGrad
    | PrunePGD
    | Rise
    | Occlusion
    | ExtremalPerturbation
    | MeaningfulPerturbation
    | ScoreCam
    | AblationCam
    | FullGrad
    | Captum,
    Field(discriminator="name"),
]  # fmt: skip

__all__ = [
    "AGI",
    "METHODS",
    "AblationCam",
    "Captum",
    "DeepLift",
    "DynamicAblation",
    "ExtremalPerturbation",
    "FullGrad",
    "GradCam",
    "Gradient",
    "GradientXInput",
    "GuidedBackprop",
    "GuidedGradCam",
    "IntegratedGradients",
    "LRPEpsilon",
    "LearnedPropagation",
    "MeaningfulPerturbation",
    "Method",
    "Occlusion",
    "PruneGrad",
    "PrunePGD",
    "Random",
    "RectGrad",
    "Rise",
    "ScoreCam",
    "SmoothGrad",
    "SmoothGradSquared",
]
