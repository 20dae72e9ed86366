"""What the frozen layers at the bottom give is kept on disk, and training comes to the same without running them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch.utils.data import Dataset as TorchDataset

from hf_layertracer import LayerTracerConfig, LayerTracerError, LayerTracerTrainer, Probe
from hf_layertracer.training.row_store import RowStore, same_values


PROBES = [Probe((5, 6, 7, 8), 9), Probe((10, 11), 12)]
EPOCHS = {"max_steps": -1, "num_train_epochs": 2, "logging_strategy": "steps", "logging_steps": 1}


class Runs:
    """Counts how often each layer computes in training."""

    def __init__(self, model: Any):
        self.of = [0] * len(model.model.layers)
        for index, layer in enumerate(model.model.layers):
            layer.mlp.register_forward_hook(self._counting(index))

    def _counting(self, index: int) -> Any:
        def count(module: Any, args: Any, output: Any) -> None:
            self.of[index] += module.training

        return count


@pytest.fixture
def still(make_model):
    """`still()`: a model that draws no random numbers."""
    return lambda: make_model(attention_dropout=0.0)


@pytest.fixture
def train(still, make_args, token_dataset, quick, tmp_path):
    """`train(cache=True, model=None, dataset=None, wrap=None, config={}, **args)`: the trainer, and how often layers ran."""

    def run(cache=True, model=None, dataset=None, wrap=None, config=None, **changes):
        model = model or still()
        runs = Runs(model)
        settings = {"strategy": "freeze-shallow", **(config or {})}
        if cache:
            settings["prefix_cache"] = str(tmp_path / "cache")
        trainer = LayerTracerTrainer(
            model=wrap(model) if wrap else model,
            args=make_args(**{**EPOCHS, **changes}),
            train_dataset=token_dataset if dataset is None else dataset,
            probes=PROBES,
            layertracer_config=quick(**settings),
        )
        trainer.train()
        return trainer, runs.of

    return run


def losses(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def close(one, other) -> bool:
    return losses(one) == pytest.approx(losses(other), rel=1e-5)


def adapters_on_deep_layers(model):
    torch.manual_seed(2)
    return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], layers_to_transform=[2, 3]))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": False}},
        {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}},
        {"gradient_accumulation_steps": 2},
        {"wrap": adapters_on_deep_layers, "config": {"strategy": "full"}},
    ],
    ids=["plain", "checkpointing", "reentrant", "accumulation", "adapters"],
)
def test_training_comes_to_the_same_and_frozen_layers_run_once_a_row(train, settings, tmp_path, caplog):
    (plain, before), (cached, runs) = train(cache=False, **settings), train(**settings)
    assert close(cached, plain)
    for (name, one), (_, other) in zip(cached.model.named_parameters(), plain.model.named_parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=name)
    # 16 rows in 8 batches: one epoch, and the first batch of the second, which is compared with what was kept.
    assert runs[:2] == [9, 9]
    assert min(before[:2]) == 16
    assert runs[2:] == [count + 1 for count in before[2:]]
    assert len(files(tmp_path / "cache")) == 16
    assert "0.0015 GiB" not in caplog.text
    assert "16 rows" in caplog.text
    assert any("14 rows were read from disk and 18 were computed" in note for note in cached.layertracer_report.notes)
    assert not any(module._forward_pre_hooks or "forward" in vars(module) for module in cached.model.modules())


def test_a_later_run_reads_what_an_earlier_one_kept_and_other_weights_do_not(train, still, tmp_path):
    first, _ = train()
    again, runs = train()
    assert runs[:2] == [1, 1], "the first batch alone is computed, to compare"
    assert close(again, first)
    kept = files(tmp_path / "cache")
    assert len(kept) == 16
    other = still()
    with torch.no_grad():
        other.model.layers[0].mlp.down_proj.weight.mul_(1.5)
    changed, runs = train(model=other)
    assert runs[:2] == [9, 9]
    assert not close(changed, first)
    assert len(files(tmp_path / "cache")) == 32


def test_files_that_are_damaged_are_computed_again_and_wrong_ones_switch_the_cache_off(train, tmp_path):
    first, _ = train()
    kept = files(tmp_path / "cache")
    kept[0].write_bytes(kept[0].read_bytes()[:-40])
    again, runs = train()
    assert close(again, first)
    assert runs[0] in (1, 2, 3)
    for path, other in zip(kept, kept[1:] + kept[:1], strict=True):
        path.with_suffix(".moved").write_bytes(other.read_bytes())
    for path in kept:
        path.with_suffix(".moved").replace(path)
    wrong, runs = train()
    assert close(wrong, first)
    assert runs[:2] == [16, 16]
    assert any("does not give what the layers give" in note for note in wrong.layertracer_report.notes)


def test_a_limit_holds(train, tmp_path):
    first, _ = train(cache=False)
    limited, _ = train(config={"prefix_cache_size": "10000"})
    kept = files(tmp_path / "cache")
    assert 0 < len(kept) < 16
    assert sum(path.stat().st_size for path in kept) <= 10000
    assert close(limited, first)


class Augmented(TorchDataset):
    """Rows that are others each time they are read."""

    def __init__(self, rows):
        self.rows, self.generator = rows, torch.Generator().manual_seed(0)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        ids = torch.randint(3, 20, (12,), generator=self.generator)
        return {"input_ids": ids, "attention_mask": torch.ones(12, dtype=torch.long), "labels": ids}


def test_rows_that_change_each_time_are_computed_each_time_and_it_is_said(train, token_rows):
    (plain, _), (cached, runs) = (train(cache=cache, dataset=Augmented(token_rows)) for cache in (False, True))
    assert runs[:2] == [16, 16]
    assert close(cached, plain)
    assert any("No row came twice" in note for note in cached.layertracer_report.notes)


def test_rows_of_several_lengths_are_told_apart(train, token_rows):
    rows = [{name: values[: 6 + index % 6] for name, values in row.items()} for index, row in enumerate(token_rows)]
    # One row a batch, so that nothing is padded.
    settings = {"dataset": Dataset.from_list(rows), "per_device_train_batch_size": 1}
    (plain, _), (cached, runs) = train(cache=False, **settings), train(**settings)
    assert close(cached, plain)
    assert runs[:2] == [17, 17]


def test_dropout_in_frozen_layers_is_refused_and_in_trained_ones_it_is_not(train, still):
    noisy = still()
    noisy.model.layers[1].self_attn.attention_dropout = 0.5
    with pytest.raises(LayerTracerError, match="draw random numbers"):
        train(model=noisy)
    assert not any(module._forward_pre_hooks and "forward" in vars(module) for module in noisy.modules())
    found = []
    for cache in (False, True):
        model = still()
        model.model.layers[3].self_attn.attention_dropout = 0.5
        found.append(train(cache=cache, model=model))
    assert close(found[0][0], found[1][0])
    assert found[1][1][:2] == [9, 9]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"config": {"strategy": "freeze-deep"}}, "there are none"),
        ({"config": {"strategy": "lisa"}}, "changes what trains"),
        ({"neftune_noise_alpha": 5.0}, "every batch another one"),
        (
            {"wrap": lambda model: get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))},
            "adapters in frozen layers",
        ),
    ],
    ids=["nothing below", "changing", "neftune", "adapters"],
)
def test_what_cannot_be_right_is_refused_in_one_line(train, settings, said):
    with pytest.raises(LayerTracerError, match=said):
        train(**settings)


def test_weights_that_change_under_it_switch_it_off(train, still, token_dataset):
    found = []
    for cache in (False, True):
        model = still()
        found.append(train(cache=cache, model=model, dataset=Meddled(model, token_dataset))[0])
    assert close(*found)
    assert any("weights of the frozen layers changed" in note for note in found[1].layertracer_report.notes)


class Meddled(TorchDataset):
    """Changes a frozen weight when its tenth row is read."""

    def __init__(self, model, rows):
        self.model, self.rows, self.count = model, rows, 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        self.count += 1
        if self.count == 10:
            with torch.no_grad():
                self.model.model.layers[0].mlp.down_proj.weight.mul_(1.1)
        return self.rows[index]


def test_a_size_that_is_none_is_refused_at_once():
    with pytest.raises(LayerTracerError, match="prefix_cache_size"):
        LayerTracerConfig(prefix_cache_size="much")


def test_a_store_keeps_what_fits_and_forgets_nothing(tmp_path):
    store = RowStore(tmp_path, 10**6)
    row = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    assert store.get("ab12") is None
    assert store.put("ab12", row)
    assert torch.equal(store.get("ab12"), row)
    assert store.get("ab12").dtype == torch.bfloat16
    assert not RowStore(tmp_path, 10).put("cd34", row)
    assert same_values(row, row)
    assert not same_values(row, row + 1)
    assert not same_values(row, row.float())
