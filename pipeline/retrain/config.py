"""What a remove-and-retrain benchmark is: its arms, and how each network is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt

from pipeline.contracts import Config
from pipeline.models import TrainingConfig

RetrainKind = Literal["roar", "kar"]
RetrainFill = Literal["mean", "black"]


def _shares(fractions: tuple[float, ...]) -> tuple[float, ...]:
    if any(not 0 < share <= 1 for share in fractions):
        raise ValueError("expected shares of the pixels above 0, up to 1")
    if len(set(fractions)) < len(fractions) or list(fractions) != sorted(fractions):
        raise ValueError("expected different fractions in ascending order")
    return fractions


class RetrainConfig(TrainingConfig):
    """Remove (or keep) the most relevant pixels of every image, train anew, and see how much the network still learns.

    Every image of the training and of the test split loses the top share of its pixels to the training images' mean
    colour (`roar`), or all others (`kar`), before augmentation. The clean and the `random` arm are trained once for
    all. The arms of one repeat start from the same weights and see the same images in the same order: one that a method
    has no order of the pixels for (its map failed, or is the same everywhere) is masked as the random arm masks it.

    Source: Hooker et al. 2019, "A benchmark for interpretability methods in deep neural networks": per-channel mean,
        five initialisations, fractions 10 30 50 70 90 %; the images are masked as the network sees them, not before a
        resize. Keep-and-retrain (KAR) is named there as well. Fractions 40 … 90 %: learned propagation rules, Table 1.
    """

    kind: RetrainKind = Field("roar", description="what becomes of the top pixels: removed (roar) or kept (kar)")
    methods: tuple[str, ...] = Field(min_length=1, description="ids of methods of this job; random need not be one")
    fractions: Annotated[tuple[float, ...], AfterValidator(_shares)] = Field(
        (0.1, 0.3, 0.5, 0.7, 0.9), min_length=1, description="shares of the pixels removed or kept, ascending"
    )
    repeats: PositiveInt = Field(5, description="trainings from different initial weights, of each arm")
    model: str = Field(description="the network that is trained: own small nets, any torchvision classifier, timm:NAME")
    explained: str | None = Field(None, description="id of the model whose maps decide; default: the job's first")
    max_unranked_share: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="share of a split's images that a method may lack an order of the pixels for, and that are masked "
        "at random then; with more of them its networks are not trained",
    )
    fill: RetrainFill = Field("mean", description="what takes a pixel's place: the training images' mean, or black")
    train_limit: int | None = Field(
        None, ge=2, description="train on so many images, drawn with the job's seed; default: all"
    )
    save_weights: bool = Field(False, description="keep each network's weights beside its row")
    write_masked: bool = Field(False, description="write the masked images as well, under masked/")

    def training(self) -> TrainingConfig:
        """How one network is trained."""
        return TrainingConfig(**{name: getattr(self, name) for name in TrainingConfig.model_fields})


class Cell(Config):
    """One training of a benchmark.

    Attributes:
        kind, fill: what becomes of the pixels.
        network: the architecture.
        method: id of the method whose ranks decide; None for the clean arm.
        fraction: share of the pixels; 0 for the clean arm.
        repeat: which of the initial weights.
        training: how it is trained.
        save_weights: whether they are kept.
        max_unranked_share: of a split, the share of images without ranks up to which it is trained.
    """

    kind: RetrainKind
    fill: RetrainFill
    network: str
    method: str | None
    fraction: float
    repeat: int
    training: TrainingConfig
    save_weights: bool = False
    max_unranked_share: float = 0.05

    @property
    def id(self) -> str:
        """What its row is called."""
        return f"{self.kind}/{self.network}/{self.method or 'clean'}/{self.fraction:g}/{self.repeat}"
