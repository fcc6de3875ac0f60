"""Adversarial gradient integration: what tells the target class from each of several false classes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor

from pipeline.contracts import AttributionMethod, Batch, Cost, ExplainedOutput, Explanation, Setting
from pipeline.methods.gradient import explained
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise

PAPER_CLASSES = 20

NamedClasses = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]


class AGI(AttributionMethod):
    """Gradients of the target class summed along steepest-ascent paths to false classes.

    From the image x₀, every path goes towards its false class i until i is predicted or the steps are spent, and
    adds −∇f^t(x)·d, where d leads from

    - `paper`: x to x + ε·sign(∇f^i(x)). Steps add up and are not clipped to [0, 1].
    - `official`: x₀ to clip(x₀ + ε·sign(∇f^i(x)), 0, 1), which is the next x. Every step starts from the image anew,
      so that no path leaves the ε-box around it.

    The map is the sum over the paths. A false class that is the sample's target is skipped; a sample with nothing to
    walk fails. Beside the maps: `false_classes` of each sample, and the `steps` taken towards each.

    Source: Pan et al. 2021, Algorithms 1 and 2 (protocol `paper`), and their published code (`official`), which runs
        50 steps in its demonstration and 20, the paper's and the default here, for its scores. f is the softmax
        probability, which Eq. 2 needs. The direction is read from log f^i, whose gradient has the sign of f^i's and
        does not underflow. Where a model has fewer false classes than 20, all are taken (Sec. 4.5).
        The default reduction orders pixels as the published heat maps do, which take the mean over the channels. The
        published scores reduce nothing: each channel is ranked on its own, and a pixel's turn comes with the first.
    """

    name: Literal["agi"] = "agi"
    protocol: Literal["paper", "official"] = Field(
        "paper", description="paper: Algorithms 1 and 2 as printed; official: as the published code steps"
    )
    classes: PositiveInt | NamedClasses | None = Field(
        None,
        description="how many false classes, or a list of them by number (one: individual AGI); "
        "default: 20, or all where there are fewer",
    )
    choice: Literal["sampled", "strided"] | None = Field(
        None,
        description="which, where they are not named. sampled: drawn for each image; strided: every (n/k)-th of n "
        "classes from 0, one fewer where the target is among them. Default: sampled under `paper`, strided under "
        "`official`",
    )
    steps: PositiveInt = Field(20, description="longest path (m)")
    step_size: float = Field(0.05, gt=0, le=1, description="ε, in pixel scale [0, 1]")
    output: ExplainedOutput = Field("probability", description="f")
    softmax: Literal["once", "twice"] = Field(
        "once",
        description="twice: the model's probabilities are taken for logits, as in the published script for the scores",
    )

    @model_validator(mode="after")
    def _named_classes_are_chosen(self) -> Self:
        if isinstance(self.classes, tuple):
            if len(set(self.classes)) < len(self.classes):
                raise ValueError(f"classes names a false class twice: {list(self.classes)}")
            if self.choice is not None:
                raise ValueError("choice has nothing to choose where classes names the false classes; remove one")
        return self

    def cost(self, setting: Setting) -> Cost:
        """At most k·m forwards and twice as many backwards: a path ends when its class is predicted."""
        paths = len(self._candidates(setting.classes) or range(self._count(setting.classes)))
        return Cost(paths * self.steps, 2 * paths * self.steps)

    def objection(self, model: Classifier, setting: Setting) -> str | None:
        """More false classes asked for than the model has, or one named that it does not have."""
        if isinstance(self.classes, tuple):
            unknown = [label for label in self.classes if label >= model.classes]
            return f"agi: there is no class {unknown[0]}, the model has 0 to {model.classes - 1}" if unknown else None
        if self.classes is not None and self.classes > model.classes - 1:
            return f"agi: classes is {self.classes}, the model has {model.classes - 1} false classes"
        return None

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """Signed attributions, (B, 3, H, W); NaN for a sample with nothing to walk."""
        return self.explain(model, batch, noise).maps

    def explain(self, model: Classifier, batch: Batch, noise: Noise) -> Explanation:
        """Signed attributions, (B, 3, H, W), with the false classes and the steps taken towards each."""
        false_classes = [
            self._false_classes(model.classes, sample, target, noise)
            for sample, target in zip(batch.ids, batch.targets.tolist(), strict=True)
        ]
        paths = [(row, label) for row, labels in enumerate(false_classes) for label in labels]
        maps, taken = self._walk(model, batch, paths)
        steps: list[list[int]] = [[] for _ in batch.ids]
        for (row, _), count in zip(paths, taken, strict=True):
            steps[row].append(count)
        failed = {}
        for row, labels in enumerate(false_classes):
            if not any(steps[row]):
                why = "every false class is predicted already" if labels else "there is no false class but the target"
                failed[row] = f"{why}, so there is no path to walk"
                maps[row] = torch.nan
        columns = {"false_classes": false_classes, "steps": steps}
        return Explanation(maps, columns, failed)

    def _count(self, classes: int) -> int:
        """How many false classes, where they are not named."""
        return min(self.classes if isinstance(self.classes, int) else PAPER_CLASSES, classes - 1)

    def _candidates(self, classes: int) -> tuple[int, ...]:
        """The false classes that are the same for every sample, the target possibly among them; else none."""
        if isinstance(self.classes, tuple):
            return self.classes
        choice = self.choice or ("sampled" if self.protocol == "paper" else "strided")
        if choice == "sampled" or (self.classes is None and classes - 1 <= PAPER_CLASSES):
            return ()
        # As in the published code, which never reaches the last class.
        return tuple(range(0, classes - 1, classes // self._count(classes)))

    def _false_classes(self, classes: int, sample: str, target: int, noise: Noise) -> list[int]:
        """The classes that the paths of one sample go to."""
        if candidates := self._candidates(classes):
            return [label for label in candidates if label != target]
        others = [label for label in range(classes) if label != target]
        return noise.choice("agi", sample, others, self._count(classes)) if others else []

    def _walk(self, model: Classifier, batch: Batch, paths: list[tuple[int, int]]) -> tuple[Tensor, list[int]]:
        """What the paths, given as (image, false class), add up to, and how many steps each of them took."""
        maps = torch.zeros_like(batch.images)
        taken = [0] * len(paths)
        owners, false = torch.tensor(paths, dtype=torch.long, device=maps.device).view(-1, 2).unbind(1)
        # One row a path. Finished rows leave and others enter, so that every forward is full until the last paths.
        path = steps = torch.zeros(0, dtype=torch.long, device=maps.device)
        pixels = gathered = batch.images[:0]
        entered = 0
        while entered < len(paths) or len(path):
            if entering := min(model.rows - len(path), len(paths) - entered):
                new = torch.arange(entered, entered + entering, device=maps.device)
                pixels = torch.cat([pixels, batch.images[owners[new]]])
                gathered = torch.cat([gathered, torch.zeros_like(batch.images[owners[new]])])
                path, steps = torch.cat([path, new]), torch.cat([steps, torch.zeros_like(new)])
                entered += entering
            owner = owners[path]
            pixels, step, arrived = self._step(model, pixels, batch.images[owner], batch.targets[owner], false[path])
            gathered = gathered + step
            steps = steps + ~arrived
            going = ~arrived & (steps < self.steps)
            done, ended = torch.stack([path, steps], 1)[~going].tolist(), gathered[~going]
            for (number, count), found in zip(done, ended, strict=True):
                maps[paths[number][0]] += found
                taken[number] = count
            pixels, gathered, path, steps = pixels[going], gathered[going], path[going], steps[going]
        return maps, taken

    def _step(
        self, model: Classifier, pixels: Tensor, images: Tensor, targets: Tensor, false: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step of every path: the moved pixels, what the step adds, and which paths had arrived before it.

        Args:
            model: the classifier.
            pixels: (N, 3, H, W), where the paths stand.
            images: (N, 3, H, W), where they began.
            targets: (N,) the explained classes.
            false: (N,) the classes walked to.

        Returns:
            pixels (N, 3, H, W), addend (N, 3, H, W) (zero for a path that had arrived), arrived (N,) bool.
        """
        pixels = pixels.detach().requires_grad_(True)
        logits = model(pixels)
        arrived = logits.argmax(1) == false
        # In single precision 1 − f^t is mostly rounding where f^t is nearly 1, and so are the signs behind it.
        logits = logits.double()
        if self.softmax == "twice":
            logits = F.softmax(logits, dim=1)
        rising = logits if self.output == "logit" else F.log_softmax(logits, dim=1)
        ascent = rising.gather(1, false[:, None]).sum()
        uphill = torch.autograd.grad(ascent, pixels, retain_graph=True)[0]
        descent = torch.autograd.grad(explained(logits, targets, self.output).sum(), pixels)[0]
        move = self.step_size * uphill.sign()
        if self.protocol == "official":
            pixels = (images + move).clamp(0, 1)
            move = pixels - images
        else:
            pixels = pixels.detach() + move
        return pixels, -descent * move * (~arrived).view(-1, 1, 1, 1), arrived
