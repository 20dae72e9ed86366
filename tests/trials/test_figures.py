"""The pictures of a trial: what is there can be seen."""

from __future__ import annotations

from hf_layertracer.trials import TrialsResult
from hf_layertracer.trials.figures import draw_losses


def test_a_loss_that_was_logged_once_is_seen(make_config, finished):
    result = TrialsResult.load(finished(make_config(arms=[{"strategy": "full"}, {"strategy": "random"}])))
    result.runs_of("full")[0]["losses"] = [[4, 3.0]]
    drawn = {line.get_marker(): line for axes in draw_losses(result).axes for line in axes.lines if line.zorder == 2}
    assert list(drawn["."].get_xdata()) == [4]
    assert len(drawn["None"].get_xdata()) > 1
