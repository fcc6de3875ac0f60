"""What a spec says about a model: its name, its weights, its normalisation, its training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from pipeline.contracts import Config
from pipeline.errors import FatalError
from pipeline.filesystem import without_options
from pipeline.models.build import check_name, published_weights

WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".th")
_PUBLISHED = re.compile(r"[A-Z][A-Z0-9_]*")

Channel = Annotated[float, Field(allow_inf_nan=False)]
PositiveChannel = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class TrainingConfig(Config):
    """How a network is trained, with a one-cycle learning rate.

    The defaults suit every small net here on a few thousand images; AdamW takes one rate for nets with and
    without batch norm, where gradient descent with momentum needs its own for each.

    One seed gives one result on one kind of hardware. Another kind rounds otherwise, and with `precision: auto` it
    may compute in another precision; where that must not be, name the precision.
    """

    epochs: PositiveInt = Field(10, description="passes over the training images")
    batch_size: int = Field(64, ge=2, description="images a step")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="sgd is with Nesterov momentum")
    learning_rate: float = Field(0.004, gt=0, description="peak of the one-cycle schedule")
    warm_up: float = Field(0.25, gt=0, lt=1, description="share of the steps in which the rate rises")
    momentum: float = Field(0.9, ge=0, lt=1, description="AdamW's first decay rate; momentum of sgd")
    weight_decay: float = Field(0.01, ge=0, description="AdamW: times the rate, from the weights; sgd: in the loss")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")
    augmentation: Literal["none", "shift", "flip_and_shift"] = Field(
        "shift", description="random shifts, and mirror images; digits must not be mirrored"
    )
    shift: float = Field(0.125, ge=0, le=0.5, description="largest shift, as a share of the side")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="of the passes through the network while it is trained; auto: bfloat16 on GPUs that have it, "
        "float32 elsewhere",
    )


class ModelConfig(Config):
    """One model of a spec.

    Attributes:
        id: how results call the model; by default its name, with `-` for characters a folder name should not
            have.
    """

    name: str = Field(description="own small net, torchvision classifier, timm:NAME, or module:function")
    weights: str = Field(
        description="file (.safetensors, .pt, .pth, .th; path or URI), published name such as IMAGENET1K_V1 "
        "or DEFAULT, `train`, or `random` for an untrained network"
    )
    id: str = Field("", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="how results call it; default: name")
    classes: PositiveInt | None = Field(None, description="default: what the weights say, else the data set's")
    mean: tuple[Channel, Channel, Channel] | None = Field(
        None,
        description="per channel, in [0, 1]; default: what comes with the weights, else ImageNet's (0.5 for the "
        "inception_v3 and googlenet of torchvision)",
    )
    std: tuple[PositiveChannel, PositiveChannel, PositiveChannel] | None = Field(
        None,
        description="per channel, in [0, 1]; default: what comes with the weights, else ImageNet's (0.5 for the "
        "inception_v3 and googlenet of torchvision)",
    )
    training: TrainingConfig | None = Field(None, description="for `weights: train` alone")

    @model_validator(mode="before")
    @classmethod
    def _name_is_the_default_id(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("name"), str) and values.get("id") is None:
            return {**values, "id": re.sub(r"[^A-Za-z0-9._-]+", "-", values["name"]).lstrip("._-")}
        return values

    @field_validator("name")
    @classmethod
    def _name_is_known(cls, name: str) -> str:
        try:
            check_name(name)
        except FatalError as error:
            raise ValueError(str(error)) from None
        return name

    @model_validator(mode="after")
    def _weights_fit(self) -> ModelConfig:
        if self.training is not None and self.weights != "train":
            raise ValueError(f"training is for weights: train, but weights is '{self.weights}'")
        if self.weights in ("train", "random") or self.weights_path() is not None:
            return self
        if not _PUBLISHED.fullmatch(self.weights):
            raise ValueError(
                f"weights '{self.weights}': expected a file ending in {', '.join(WEIGHT_FILES)}, "
                "a published name such as IMAGENET1K_V1, `train` or `random`"
            )
        try:
            published_weights(self.name, self.weights)
        except FatalError as error:
            raise ValueError(str(error)) from None
        return self

    def weights_path(self) -> str | None:
        """The path or URI of the weights, where `weights` names a file; None otherwise."""
        return self.weights if without_options(self.weights).lower().endswith(WEIGHT_FILES) else None

    def training_settings(self) -> TrainingConfig:
        """How to train under `weights: train`: the settings given, or the defaults."""
        return self.training if self.training is not None else TrainingConfig()
