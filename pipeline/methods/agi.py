"""Adversarial gradient integration: what tells the target class from each of several false classes."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor

from pipeline.contracts import AttributionMethod, Batch, Cost, ExplainedOutput, Setting
from pipeline.methods.gradient import explained
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise

PAPER_CLASSES = 20


class AGI(AttributionMethod):
    """Gradients of the target class summed along steepest-ascent paths to sampled false classes.

    From the image, every path takes steps d = ε·sign(∇f^i) until class i is predicted or the steps are spent,
    and adds −∇f^t·d. The map is the sum over the paths. Steps are not clipped to [0, 1], as in the paper.

    Source: Pan et al. 2021, Algorithms 1 and 2 (protocol `paper`); f is the softmax probability, which Eq. 2
        needs. The direction is read from log f^i, whose gradient has the sign of f^i's and does not underflow.
        Where a model has fewer false classes than 20, all are taken (Sec. 4.5).
    """

    name: Literal["agi"] = "agi"
    protocol: Literal["paper"] = Field("paper", description="Algorithms 1 and 2 as printed")
    classes: PositiveInt | None = Field(
        None, description="false classes sampled; default: 20, or all where there are fewer"
    )
    steps: PositiveInt = Field(20, description="longest path (m)")
    step_size: float = Field(0.05, gt=0, le=1, description="ε, in pixel scale [0, 1]")
    output: ExplainedOutput = Field("probability", description="f")

    def cost(self, setting: Setting) -> Cost:
        """At most k·m forwards and twice as many backwards: a path ends when its class is predicted."""
        paths = min(self.classes or PAPER_CLASSES, setting.classes - 1)
        return Cost(paths * self.steps, 2 * paths * self.steps)

    def objection(self, model: Classifier, setting: Setting) -> str | None:
        """More false classes asked for than the model has."""
        if self.classes is not None and self.classes > model.classes - 1:
            return f"agi: classes is {self.classes}, the model has {model.classes - 1} false classes"
        return None

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """Signed attributions, (B, 3, H, W)."""
        maps = torch.zeros_like(batch.images)
        waiting = self._paths(model, batch, noise)
        device = batch.images.device
        # One row a path: `owner` is its image, `false` its class. Finished rows leave and others enter, so that
        # every forward is full until the last paths.
        pixels = batch.images[:0]
        gathered = batch.images[:0]
        owner = false = steps = torch.zeros(0, dtype=torch.long, device=device)
        while waiting or len(owner):
            entering, waiting = waiting[: model.rows - len(owner)], waiting[max(0, model.rows - len(owner)) :]
            if entering:
                new_owner, new_false = torch.tensor(entering, device=device).unbind(1)
                pixels = torch.cat([pixels, batch.images[new_owner]])
                gathered = torch.cat([gathered, torch.zeros_like(batch.images[new_owner])])
                owner, false = torch.cat([owner, new_owner]), torch.cat([false, new_false])
                steps = torch.cat([steps, torch.zeros_like(new_owner)])
            pixels, step, reached = self._step(model, pixels, batch.targets[owner], false)
            gathered = gathered + step
            steps = steps + 1
            finished = reached | (steps >= self.steps)
            for row in finished.nonzero()[:, 0].tolist():
                maps[owner[row]] += gathered[row]
            going = ~finished
            pixels, gathered, owner = pixels[going], gathered[going], owner[going]
            false, steps = false[going], steps[going]
        return maps

    def _paths(self, model: Classifier, batch: Batch, noise: Noise) -> list[tuple[int, int]]:
        """(image, false class) of every path, images in order."""
        paths = []
        for row, (sample, target) in enumerate(zip(batch.ids, batch.targets.tolist(), strict=True)):
            others = [label for label in range(model.classes) if label != target]
            count = min(self.classes or PAPER_CLASSES, len(others))
            paths += [(row, label) for label in noise.choice("agi", sample, others, count)]
        return paths

    def _step(self, model: Classifier, pixels: Tensor, targets: Tensor, false: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step of every path: the moved pixels, what the step adds, and which paths had arrived before it.

        Args:
            model: the classifier.
            pixels: (N, 3, H, W), where the paths stand.
            targets: (N,) the explained classes.
            false: (N,) the classes walked to.

        Returns:
            pixels (N, 3, H, W), addend (N, 3, H, W) (zero for a path that had arrived), arrived (N,) bool.
        """
        pixels = pixels.detach().requires_grad_(True)
        logits = model(pixels)
        arrived = logits.argmax(1) == false
        rising = logits if self.output == "logit" else F.log_softmax(logits, dim=1)
        ascent = rising.gather(1, false[:, None]).sum()
        uphill = torch.autograd.grad(ascent, pixels, retain_graph=True)[0]
        descent = torch.autograd.grad(explained(logits, targets, self.output).sum(), pixels)[0]
        move = self.step_size * uphill.sign() * (~arrived).view(-1, 1, 1, 1)
        return pixels.detach() + move, -descent * move, arrived
