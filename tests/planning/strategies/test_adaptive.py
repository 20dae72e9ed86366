"""The boundary that follows measurements."""

from __future__ import annotations

import pytest

from hf_layertracer import make_plan
from hf_layertracer.planning.plan import change_plan
from hf_layertracer.planning.strategies import Moment


FLAT, SHALLOW, DEEP = [0.1] * 8, [0.3] * 4 + [0.1] * 4, [0.1] * 4 + [0.3] * 4


@pytest.mark.parametrize("all_probes", [FLAT, SHALLOW, DEEP])
@pytest.mark.parametrize(
    ("at_first", "now", "trained"),
    [
        *((scores, scores, None) for scores in (FLAT, SHALLOW, DEEP)),
        (FLAT, SHALLOW, 3),  # 4 of 8, then 9 of 16 rather than 6
        (SHALLOW, FLAT, 6),  # 12 of 16, then 6 of 8
    ],
)
def test_only_a_change_since_the_first_step_moves_the_boundary(meta, report_of, all_probes, at_first, now, trained):
    report = report_of(meta(8), sensitivity=all_probes)
    plan = make_plan(report, "adaptive", hysteresis=0)
    moment = Moment(20, 100, frozenset(plan.trained_layers), now, at_first)
    changed = change_plan(report.model, plan, moment, report)
    assert (None if changed is None else changed.trained_layers) == (None if trained is None else list(range(trained)))
