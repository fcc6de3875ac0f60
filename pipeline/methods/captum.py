"""Any attribution class of Captum, behind the contract of a method."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from pipeline.contracts import AttributionMethod, Batch, Cost, Segmentation, Setting
from pipeline.errors import FatalError, one_line
from pipeline.fill import Fill, filled
from pipeline.methods.enlarge import enlarged
from pipeline.models.classifier import Classifier
from pipeline.models.layers import last_spatial_layer
from pipeline.noise import Noise
from pipeline.suggestion import did_you_mean
from pipeline.superpixel import superpixels

Argument = bool | int | float | str | None
_MOST_FEATURES = 5_000
_COUNTS = ("n_steps", "n_samples", "nt_samples")
# How many where nothing is said, as in Captum.
_SAMPLES = {
    "IntegratedGradients": 50,
    "LayerIntegratedGradients": 50,
    "LayerConductance": 50,
    "InternalInfluence": 50,
    "ShapleyValueSampling": 25,
    "KernelShap": 25,
    "Lime": 50,
    "GradientShap": 5,
    "LayerGradientShap": 5,
    "NoiseTunnel": 5,
}
_BY_FEATURE = ("FeatureAblation", "ShapleyValueSampling", "Occlusion")
# These draw from PyTorch's and NumPy's global generators.
_RANDOM = ("GradientShap", "LayerGradientShap", "KernelShap", "Lime", "NoiseTunnel", "ShapleyValueSampling")
_REFUSED = {
    "FeaturePermutation": "exchanges pixels between the images of a batch: a map would depend on its batch",
    "LayerFeaturePermutation": "exchanges features between the images of a batch: a map would depend on its batch",
}


class Captum(AttributionMethod):
    """An attribution class of Captum, written `captum:NAME` in a spec, such as `captum:ShapleyValueSampling`.

    The explained output is the target's logit. A class that takes a layer gets the last spatial one, or the one
    named, and its map is enlarged to the image; one that takes baselines gets `baseline`; one that divides the image
    into features gets superpixels where `superpixels` says how many, else it changes pixel by pixel. Classes that
    draw random numbers explain one image at a time, from a seed of its own.

    Source: Kokhlikyan et al. 2020, "Captum". Whether a class is right on a model is Captum's affair: see its
        documentation for reused, in-place and functional activations.
    """

    name: Literal["captum"] = "captum"
    attribution: str = Field(description="class of captum.attr; the NAME in captum:NAME")
    arguments: Mapping[str, Argument | tuple[Argument, ...]] = Field(
        {}, description="further arguments of the class and of its `attribute`"
    )
    of: str | None = Field(None, description="for NoiseTunnel: the class whose maps it averages")
    layer: str | None = Field(None, description="dotted module name; default: the last layer with a spatial map")
    baseline: Fill = Field("black", description="for classes that take baselines")
    superpixels: PositiveInt | None = Field(None, description="for classes that take a feature mask: how many")

    def cost(self, setting: Setting) -> Cost:
        """An estimate, as Captum does not tell: steps or samples, times features where it goes feature by feature."""
        counted = next((value for key in _COUNTS if isinstance(value := self.arguments.get(key), int)), None)
        samples = counted if counted is not None else _SAMPLES.get(self.attribution, 1)
        if self.attribution in _BY_FEATURE:
            return Cost(samples * ((self.superpixels or 3 * setting.height * setting.width) + 1))
        return Cost(samples) if self.attribution in ("KernelShap", "Lime") else Cost(samples, samples)

    def segmentation(self) -> Segmentation | None:
        """The superpixels that serve as features."""
        return Segmentation(count=self.superpixels) if self.superpixels else None

    def objection(self, model: Classifier, setting: Setting) -> str | None:
        """No such class, or one of another kind, or one that fails on this model."""
        try:
            attribute = self._attribute(model, (setting.height, setting.width))
            if "perturbations_per_eval" in _parameters(attribute):
                # To try these would take as long as to run them.
                self._arguments(attribute, model, _grey(model, setting))
                return self._too_many(setting)
            with torch.enable_grad():
                self(model, _grey(model, setting), Noise())
        except FatalError as error:
            return str(error)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever Captum's checks and hooks raise
            return f"captum:{self.attribution} fails on this model: {one_line(error)[:300]}"
        return None

    def _too_many(self, setting: Setting) -> str | None:
        features = self.superpixels or 3 * setting.height * setting.width
        if self.attribution not in ("ShapleyValueSampling", "KernelShap", "Lime") or features <= _MOST_FEATURES:
            return None
        return (
            f"captum:{self.attribution}: {features:,} features are too many; set superpixels, such as superpixels: 50"
        )

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """(B, 3 or 1, H, W).

        Raises:
            FatalError: Captum is not installed, has no such class, or one that explains something else.
        """
        rows = 1 if self.attribution in _RANDOM else model.rows
        pieces = []
        for start in range(0, len(batch), rows):
            taken = list(range(start, min(start + rows, len(batch))))
            # A lone image goes through the model with a copy of itself, which a layer's hook would see.
            piece = _rows(batch, taken if len(taken) > 1 else 2 * taken)
            pieces.append(self._maps(model, piece, noise)[: len(taken)])
        return torch.cat(pieces)

    def _maps(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        height, width = batch.images.shape[-2:]
        seed = int(noise.generator("captum", batch.ids[0]).integers(2**62))
        with _hooks_restored(model), _global_generator(seed, batch.images.device):
            attribute = self._attribute(model, (height, width))
            images = batch.images.clone().requires_grad_(True)
            found = attribute(images, **self._arguments(attribute, model, batch))
        if not isinstance(found, Tensor) or found.dim() != 4 or len(found) != len(batch):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise FatalError(f"captum:{self.attribution}: returns {shape}, expected maps ({len(batch)}, C, h, w)")
        found = found.detach().float()
        if found.shape[-2:] == (height, width) and found.shape[1] in (1, 3):
            return found
        return enlarged(found.sum(1, keepdim=True), height, width)

    def _attribute(self, model: Classifier, size: tuple[int, int]) -> Callable[..., Any]:
        """The bound `attribute` of the class on this model."""
        if self.of is None:
            return self._made(_captum_class(self.attribution), model, size)
        inner = self._made(_captum_class(self.of), model, size)
        bound: Callable[..., Any] = _captum_class(self.attribution)(inner.__self__).attribute  # type: ignore[attr-defined]
        return bound

    def _made(self, kind: Any, model: Classifier, size: tuple[int, int]) -> Callable[..., Any]:
        constructor = _parameters(kind.__init__)
        if "attribution_method" in constructor:
            raise FatalError(f"captum:{self.attribution} takes another class: name it with of, such as of: Saliency")
        given: dict[str, Any] = {key: value for key, value in self.arguments.items() if key in constructor}
        if "layer" in constructor:
            name = self.layer or last_spatial_layer(model.network, *size)
            try:
                given["layer"] = model.network.get_submodule(name)
            except AttributeError:
                raise FatalError(f"captum:{self.attribution}: the model has no layer '{name}'") from None
        bound: Callable[..., Any] = kind(model, **given).attribute
        if "target" not in _parameters(bound) or "neuron_selector" in _parameters(bound):
            raise FatalError(f"captum:{self.attribution} does not explain a class of a classifier")
        return bound

    def _arguments(self, attribute: Callable[..., Any], model: Classifier, batch: Batch) -> dict[str, Any]:
        """What `attribute` is called with: the user's arguments, and ours where it has a place for them."""
        taken = _parameters(attribute)
        inner = _parameters(_captum_class(self.of).attribute) if self.of else ()
        constructor = _parameters(_captum_class(self.of or self.attribution).__init__)
        strange = [key for key in self.arguments if key not in (*taken, *inner, *constructor)]
        if strange:
            mend = did_you_mean(strange[0], [*taken, *inner])
            raise FatalError(f"captum:{self.attribution}: it has no argument '{strange[0]}'{mend}")
        given: dict[str, Any] = {"target": batch.targets}
        if "baselines" in (*taken, *inner):
            given["baselines"] = filled(self.baseline, model, batch.images).contiguous()
        if "feature_mask" in taken and self.superpixels:
            given["feature_mask"] = self._features(batch)
        together = max(1, model.rows // len(batch))
        given |= {"perturbations_per_eval": together} if "perturbations_per_eval" in taken else {}
        given |= {"internal_batch_size": model.rows} if "internal_batch_size" in taken else {}
        return given | {key: value for key, value in self.arguments.items() if key in (*taken, *inner)}

    def _features(self, batch: Batch) -> Tensor:
        """(B, 1, H, W) int64: the superpixel of every pixel."""
        if batch.superpixels is not None:
            return batch.superpixels[:, None].long()
        segmentation = Segmentation(count=self.superpixels or 1)
        found = torch.stack([superpixels(image, segmentation) for image in batch.images])
        return found[:, None].long().to(batch.images.device)


def _rows(batch: Batch, rows: list[int]) -> Batch:
    index = torch.tensor(rows, device=batch.images.device)
    superpixel = None if batch.superpixels is None else batch.superpixels[index]
    return Batch(batch.images[index], batch.targets[index], tuple(batch.ids[row] for row in rows), superpixel)


def _grey(model: Classifier, setting: Setting) -> Batch:
    """An image to try a class on, twice."""
    image = torch.full((2, 3, setting.height, setting.width), 0.5, device=model.device)
    return Batch(image, torch.zeros(2, dtype=torch.long, device=model.device), ("", ""))


def _captum_class(name: str) -> Any:
    try:
        # An optional extra.
        import captum.attr  # noqa: PLC0415
    except ImportError:
        raise FatalError(f"captum:{name} needs Captum: pip install 'heatline[captum]'") from None
    known = [
        one
        for one in dir(captum.attr)
        if inspect.isclass(kind := getattr(captum.attr, one)) and hasattr(kind, "attribute")
    ]
    if name not in known:
        raise FatalError(f"captum:{name}: Captum {captum.__version__} has no such class{did_you_mean(name, known)}")
    if name in _REFUSED:
        raise FatalError(f"captum:{name} {_REFUSED[name]}")
    return getattr(captum.attr, name)


def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


@contextmanager
def _hooks_restored(model: nn.Module) -> Iterator[None]:
    """Takes away what hooks Captum leaves on the model where it fails half-way."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    before = [(module, {kind: getattr(module, kind).copy() for kind in kinds}) for module in model.modules()]
    try:
        yield
    finally:
        for module, hooks in before:
            for kind, own in hooks.items():
                found = getattr(module, kind)
                for key in [key for key in found if key not in own]:
                    del found[key]


@contextmanager
def _global_generator(seed: int, device: torch.device) -> Iterator[None]:
    """Inside the block the global generators start from the seed; afterwards they are as they were."""
    devices = [device] if device.type == "cuda" else []
    state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices):
        # Captum can draw from no others.
        torch.manual_seed(seed)  # noqa: TID251
        np.random.seed(seed % 2**32)  # noqa: NPY002, TID251
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
