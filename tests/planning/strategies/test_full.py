"""Full training."""

from __future__ import annotations

from hf_layertracer import make_plan


def test_full_trains_everything(meta):
    plan = make_plan(meta(3), "full")
    assert (plan.trained_layers, plan.frozen_layers) == ([0, 1, 2], [])
    assert plan.train_embeddings
    assert plan.train_norm
    assert plan.train_head
