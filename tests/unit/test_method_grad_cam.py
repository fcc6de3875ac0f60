"""The class activation maps' layer: what is said of a model without one."""

from __future__ import annotations

import pytest
from small_models import linear_classifier, small_classifier

from pipeline.contracts import Setting
from pipeline.methods import AblationCam, GradCam, GuidedGradCam, ScoreCam

METHODS = [GradCam, GuidedGradCam, ScoreCam, AblationCam]


@pytest.mark.parametrize("kind", METHODS)
def test_an_objection_begins_with_the_methods_name_once(
    kind: type[GradCam | GuidedGradCam | ScoreCam | AblationCam],
) -> None:
    model, small = linear_classifier(), small_classifier()
    reasons = [
        kind().objection(model, Setting(3, 4, 4)),
        kind(layer="9").objection(small, Setting(5, 8, 8)),
        kind(layer="6").objection(small, Setting(5, 8, 8)),
    ]
    for reason in reasons:
        assert reason is not None and reason.startswith(f"{kind().name}: ") and reason.count("cam: ") == 1
