"""The frozen layers at the bottom of a model run without a graph, and nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model

from hf_layertracer import LayerTracerTrainer, Probe, apply_plan, make_plan
from hf_layertracer.modeling import find_parts
from hf_layertracer.training import events
from hf_layertracer.training.prefix import FrozenPrefix


PROBES = [Probe((5, 6, 7, 8), 9), Probe((10, 11), 12)]


class Passes:
    """Counts how often each layer runs in training, and how often with a graph."""

    def __init__(self, layers: Any):
        self.runs, self.graphs = [0] * len(layers), [0] * len(layers)
        for index, layer in enumerate(layers):
            layer.input_layernorm.register_forward_pre_hook(self._counting(index))

    def _counting(self, index: int) -> Any:
        def count(module: Any, args: Any) -> None:
            if module.training:
                self.runs[index] += 1
                self.graphs[index] += args[0].requires_grad

        return count


class Untouched:
    """In place of what is tested."""

    def __init__(self, *_: Any):
        pass

    def install(self) -> None:
        pass

    def remove(self) -> None:
        pass


def adapters_on_deep_layers(model):
    torch.manual_seed(2)  # of the adapters' own weights
    return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], layers_to_transform=[2, 3]))


@pytest.mark.parametrize("reentrant", [False, True], ids=["checkpointing", "reentrant"])
@pytest.mark.parametrize("what", ["freeze-shallow", "adapters"])
def test_a_frozen_prefix_runs_once_without_a_graph_and_the_losses_are_the_same(
    what, reentrant, make_model, make_args, token_dataset, quick, monkeypatch, assert_same_weights
):
    found = []
    for with_it in (True, False):
        if not with_it:
            monkeypatch.setattr(events, "FrozenPrefix", Untouched)
        model = make_model()
        passes = Passes(model.model.layers)
        trained = adapters_on_deep_layers(model) if what == "adapters" else model
        trainer = LayerTracerTrainer(
            model=trained,
            args=make_args(
                activation_checkpointing=True,
                activation_checkpointing_kwargs={"use_reentrant": reentrant},
                logging_strategy="steps",
                logging_steps=1,
            ),
            train_dataset=token_dataset,
            probes=PROBES,
            layertracer_config=quick(strategy="full" if what == "adapters" else "freeze-shallow"),
        )
        trainer.train()
        assert passes.runs[2:] == [6, 6], "layers that train are computed again"
        assert passes.runs[:2] == ([3, 3] if with_it else [6, 6])
        assert any(passes.graphs[:2]) != with_it
        found.append((trainer.model, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]))
    assert found[0][1] == found[1][1]
    assert_same_weights(found[0][0], found[1][0])


def test_a_prefix_follows_what_trains(make_model):
    model = make_model()
    prefix = FrozenPrefix(model, find_parts(model))
    assert prefix.depth == 0
    applied = apply_plan(model, make_plan(model, "freeze-shallow", freeze_ratio=0.75))
    assert prefix.depth == 3
    model.model.layers[1].requires_grad_(True)
    assert prefix.depth == 1
    applied.undo()
    assert prefix.depth == 0


def test_what_trains_below_the_layers_is_not_cut_off(make_model):
    model = get_peft_model(make_model(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    assert FrozenPrefix(model, find_parts(model)).depth == 0


def test_a_model_has_no_hooks_of_ours_after_training(make_model, make_args, token_dataset, quick):
    model = make_model()
    LayerTracerTrainer(
        model=model, args=make_args(), train_dataset=token_dataset, probes=PROBES, layertracer_config=quick()
    ).train()
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_frozen_linear_layer_keeps_no_input(make_model):
    """What autograd keeps of a frozen deep layer: enough for gradients to pass through, nothing for its own weights."""
    kept = []
    for strategy in ("full", "freeze-deep"):
        model = make_model(num_hidden_layers=2, attention_dropout=0.0)
        apply_plan(model, make_plan(model, strategy))
        inputs: list[torch.Tensor] = []  # held, so that nothing else takes their place in memory
        model.model.layers[1].mlp.down_proj.register_forward_pre_hook(
            lambda module, args, seen=inputs: seen.append(args[0].detach())
        )
        saved: set[int] = set()

        def pack(tensor: torch.Tensor, seen: set[int] = saved) -> torch.Tensor:
            seen.add(tensor.untyped_storage().data_ptr())
            return tensor

        ids = torch.ones(1, 4, dtype=torch.long)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(input_ids=ids, labels=ids).loss
        kept.append(any(tensor.untyped_storage().data_ptr() in saved for tensor in inputs))
        del loss
    assert kept == [True, False]
