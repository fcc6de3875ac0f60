"""Copies of a model with some of its parameters drawn anew, which share everything else with it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, overload

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.contracts import Config, digest
from pipeline.errors import FatalError
from pipeline.models.block import Part, PartKind, network_parts
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise


class Randomisation(Config):
    """Which parameters of a model are drawn anew at each step, and how.

    Under `normal` every parameter is drawn from N(0, deviation²), those of norms too. Under `own` a layer's
    `reset_parameters` draws them, which sets the scales of norms to one and their shifts to zero; parameters of modules
    that have no such function (class tokens, position embeddings, layer scales) are drawn as under `normal`.

    Source: `normal`: Khakzar et al. 2019 (PruneGrad), Sec. 4.2: all learnable parameters, a standard deviation of
        0.01, of a ResNet-50 in cascade. (The published code of the same group has a deviation of 0.1.) `own`: Adebayo
        et al. 2018, published code: the initialisers of the layers. Both keep running statistics, which are no
        learnable parameters.
    """

    order: Literal["cascading", "independent"] = Field(
        "cascading", description="a step draws all parts from the output to its own anew, or its own alone"
    )
    by: PartKind = Field("block", description="a step is a block, as people name a network's parts, or a single layer")
    initialiser: Literal["normal", "own"] = Field(
        "normal", description="N(0, deviation²) for every parameter, or each layer's own initialiser"
    )
    deviation: float = Field(0.01, gt=0, description="standard deviation of `normal`")
    statistics: Literal["keep", "reset"] = Field(
        "keep", description="what becomes of the running statistics of batch norms whose part is drawn anew"
    )
    repeat: int = Field(0, ge=0, description="which draw of several")


class RandomisedModels(Sequence[Classifier]):
    """A model's randomised copies, one a step, from the output to the image; each is built when it is asked for.

    Step 0 has the last block or layer drawn anew; in cascade, the last step has all of them. A copy shares every tensor
    that it leaves alone with the model, and every one that is drawn anew with the copies of the other steps: all of
    them together take the memory of one further model. What is drawn for a parameter depends on the seed, its name
    and the repeat alone, not on the order or on what is drawn with it.

    Attributes:
        names: of the block or layer that each step adds.

    Source: Adebayo et al. 2018, "Sanity checks for saliency maps", Sec. 3.1.
    """

    def __init__(
        self,
        model: Classifier,
        randomisation: Randomisation,
        noise: Noise,
        height: int,
        width: int,
    ) -> None:
        """Finds the steps; nothing is drawn yet.

        Args:
            model: the classifier; its parameters and buffers must not change as long as the copies are used.
            randomisation: what is drawn, and how.
            noise: of the job; its seed decides the draws.
            height, width: of the images, in pixels.

        Raises:
            FatalError: the network cannot be cut into parts at this size.
        """
        self._model, self._randomisation, self._noise = model, randomisation, noise
        self._parts = network_parts(model.network, height, width).of(randomisation.by)[::-1]
        self._drawn: dict[int, dict[int, Tensor]] = {}
        self._copies: dict[int, Classifier] = {}
        self.names = tuple(part.name for part in self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    @overload
    def __getitem__(self, step: int) -> Classifier: ...
    @overload
    def __getitem__(self, step: slice) -> Sequence[Classifier]: ...
    def __getitem__(self, step: int | slice) -> Classifier | Sequence[Classifier]:
        """The model of a step, 0 for the part at the output.

        Raises:
            FatalError: the network cannot be copied, or a layer's own initialiser fails.
        """
        if isinstance(step, slice):
            return [self[one] for one in range(len(self))[step]]
        step = range(len(self))[step]
        if step not in self._copies:
            self._copies[step] = self._copy(step)
        self._copies[step].rows = self._model.rows
        return self._copies[step]

    def _copy(self, step: int) -> Classifier:
        model = self._model
        # What stands in this table under a tensor's id is taken as its copy: the tensor itself, or the one drawn.
        memo: dict[int, object] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        for part in range(step + 1) if self._randomisation.order == "cascading" else (step,):
            memo.update(self._draw(part))
        try:
            copied = copy.deepcopy(model, memo)
        except Exception as error:  # the network may be the user's own code, which may raise anything
            raise FatalError(f"the network cannot be copied, which randomising it takes: {error}") from error
        copied.digest = digest(model.digest, self._randomisation, self._noise.seed, step)
        return copied

    def _draw(self, number: int) -> dict[int, Tensor]:
        """What takes the place of a part's tensors, by the id of what it replaces; drawn once."""
        if number not in self._drawn:
            part, network = self._parts[number], self._model.network
            own = self._own(part) if self._randomisation.initialiser == "own" else {}
            replaced: dict[int, Tensor] = {}
            for name in part.parameters:
                parameter = network.get_parameter(name)
                drawn = own[name] if name in own else self._normal(name, parameter)
                replaced[id(parameter)] = nn.Parameter(_like(parameter, drawn), parameter.requires_grad)
            if self._randomisation.statistics == "reset":
                for name in part.normalised:
                    replaced.update(_reset_statistics(network.get_submodule(name)))
            self._drawn[number] = replaced
        return self._drawn[number]

    def _normal(self, name: str, parameter: Tensor) -> Tensor:
        drawn = self._noise.normal("randomised", [name], tuple(parameter.shape), self._randomisation.repeat)[0]
        return drawn * self._randomisation.deviation

    def _own(self, part: Part) -> Mapping[str, Tensor]:
        """What the layers' own initialisers give for a part's parameters, by name, as far as they have any."""
        found: dict[str, Tensor] = {}
        for owner in dict.fromkeys(name.rpartition(".")[0] for name in part.parameters):
            module = self._model.network.get_submodule(owner)
            # That of nn.MultiheadAttention has an underscore.
            names = [key for key in ("reset_parameters", "_reset_parameters") if callable(getattr(module, key, None))]
            if not names:
                continue
            # Drawn on the CPU, so that every device gets the same numbers.
            fresh = copy.deepcopy(module).cpu()
            generator = self._noise.generator("initialised", owner, self._randomisation.repeat)
            with torch.no_grad(), _global_generator(int(generator.integers(2**62))):
                for parameter in fresh.parameters(recurse=False):
                    parameter.fill_(torch.nan)
                try:
                    getattr(fresh, names[0])()
                except Exception as error:  # the layer may be the user's own code, which may raise anything
                    what = f"the initialiser of layer '{owner}' ({type(module).__name__}.{names[0]}) fails"
                    raise FatalError(f"{what}: {error}; take initialiser: normal") from error
            for key, parameter in fresh.named_parameters(recurse=False):
                if not parameter.isnan().any():
                    found[f"{owner}.{key}" if owner else key] = parameter.detach()
        return found


def _like(tensor: Tensor, values: Tensor) -> Tensor:
    """The values with a tensor's type, device and layout in memory."""
    return torch.empty_like(tensor, requires_grad=False).copy_(values)


def _reset_statistics(module: nn.Module) -> Iterator[tuple[int, Tensor]]:
    """Fresh running statistics, with the ids of those they replace: mean 0, variance 1, no batch counted."""
    for name, start in (("running_mean", 0), ("running_var", 1), ("num_batches_tracked", 0)):
        buffer = getattr(module, name, None)
        if isinstance(buffer, Tensor):
            yield id(buffer), torch.full_like(buffer, start)


@contextmanager
def _global_generator(seed: int) -> Iterator[None]:
    """Inside the block PyTorch's generator starts from the seed, since initialisers draw from no other."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
