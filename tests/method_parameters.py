"""What each method needs said in the tests; a method that is not named runs with its defaults."""

from __future__ import annotations

# Parameters that keep a method quick on the small network of `small_models`.
QUICK: dict[str, dict[str, object]] = {
    "integrated_gradients": {"steps": 6},
    "smoothgrad": {"samples": 5},
    "smoothgrad_squared": {"samples": 5},
    "grad_cam": {"layer": "3"},
    "rise": {"masks": 40},
    "occlusion": {"patch": 3, "stride": 2},
    "extremal_perturbation": {"iterations": 10},
    "meaningful_perturbation": {"iterations": 10, "output": "logit"},
    "score_cam": {"layer": "3"},
    "ablation_cam": {"layer": "3"},
    "guided_grad_cam": {"layer": "3"},
    "agi": {"classes": 3, "steps": 4},
    "dynamic_ablation": {"iterations": 30},
    "learned_propagation": {"iterations": 4},
    "prune_grad": {"percentile": 60},
    "prune_pgd": {"percentile": 60, "steps": 4},
    "captum": {"attribution": "Saliency", "arguments": {"abs": False}},
}

# Parameters behind the golden files: as many steps and draws as the method takes by itself, where that is quick enough.
_GOLDEN_CHANGES: dict[str, dict[str, object]] = {
    "integrated_gradients": {},
    "smoothgrad": {},
    "smoothgrad_squared": {},
    "rise": {"masks": 200},
    "agi": {"classes": 3},
    "dynamic_ablation": {},
    "learned_propagation": {"iterations": 5},
    "prune_pgd": {"percentile": 60},
}
GOLDEN: dict[str, dict[str, object]] = {**QUICK, **_GOLDEN_CHANGES}

# Methods whose declared cost is an upper bound.
STOPS_EARLY = {
    "ablation_cam",
    "agi",
    "deeplift",
    "dynamic_ablation",
    "grad_cam",
    "guided_grad_cam",
    "learned_propagation",
    "prune_grad",
    "prune_pgd",
    "score_cam",
}
