"""Tiny models, datasets and arguments to train with in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from support.models import TRAINED, tiny_model
from support.tokenizers import CHARACTERS, by_character
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainingArguments

from hf_layertracer import LayerTracerConfig


SENTENCES = [
    f"{who} {what} the {which} {thing}."
    for who in ("A cat", "The dog", "My uncle", "Nobody")
    for what in ("sees", "wants")
    for which, thing in (("old", "house"), ("red", "car"), ("new", "ball"))
]

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="session")
def make_model() -> Callable[..., PreTrainedModel]:
    """`make_model(**changes)`: a random Llama of four layers; the same weights at every call."""
    return partial(tiny_model, seed=1, scatter=False, **TRAINED)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a character."""
    return by_character()


@pytest.fixture(scope="session")
def token_rows() -> list[dict[str, list[int]]]:
    """Sixteen rows of twelve tokens, ready for the default collator."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(3, len(CHARACTERS), (16, 12), generator=generator).tolist()
    return [{"input_ids": row, "attention_mask": [1] * 12, "labels": row} for row in ids]


@pytest.fixture(scope="session")
def token_dataset(token_rows: list[dict[str, list[int]]]) -> Dataset:
    return Dataset.from_list(token_rows)


@pytest.fixture(scope="session")
def text_dataset() -> Dataset:
    return Dataset.from_dict({"text": SENTENCES})


@pytest.fixture
def make_args(tmp_path: Path) -> Callable[..., TrainingArguments]:
    """`make_args(name="run", kind=TrainingArguments, **changes)`: three steps into `tmp_path / name`."""

    def make(name: str = "run", kind: type[TrainingArguments] = TrainingArguments, **changes: Any) -> Any:
        settings = {
            "output_dir": str(tmp_path / name),
            "max_steps": 3,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-2,
            "save_strategy": "no",
            "logging_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
        }
        return kind(**{**settings, **changes})

    return make


@pytest.fixture(scope="session")
def quick() -> Callable[..., LayerTracerConfig]:
    """`quick(**changes)`: settings with few probes and masks."""

    def make(**changes: Any) -> LayerTracerConfig:
        return LayerTracerConfig(**{"num_probes": 4, "repeats": 2, **changes})

    return make


@pytest.fixture(scope="session")
def weights_of() -> Callable[[nn.Module], Weights]:
    """`weights_of(model)`: copies of all parameters, by name."""

    def copy(model: nn.Module) -> Weights:
        return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    return copy


@pytest.fixture(scope="session")
def assert_same_weights() -> Callable[[nn.Module | Weights, nn.Module | Weights], None]:
    """`assert_same_weights(a, b)`: bit for bit, so for the same steps taken twice in one process.

    For two processes, or where one went on from files, see `support.tolerance.assert_close_weights`.
    """

    def check(one: nn.Module | Weights, other: nn.Module | Weights) -> None:
        one, other = (dict(m.named_parameters()) if isinstance(m, nn.Module) else m for m in (one, other))
        assert one.keys() == other.keys()
        assert [name for name in one if not torch.equal(one[name], other[name])] == []

    return check


@pytest.fixture(scope="session")
def assert_trained_only() -> Callable[[nn.Module, Weights, Iterable[str]], None]:
    """`assert_trained_only(model, before, prefixes)`: these parameters changed, no bit of any other did."""

    def check(model: nn.Module, before: Weights, prefixes: Iterable[str]) -> None:
        after = dict(model.named_parameters())
        changed = {name for name in after if not torch.equal(after[name], before[name])}
        assert changed == {name for name in after if name.startswith(tuple(prefixes))}

    return check


PLAN_LINE = "LayerTracer ("


@pytest.fixture
def warnings_of(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """`warnings_of()`: what this package has warned of in the test so far, but for the line that tells of the plan."""
    return lambda: [line for line in _warnings(caplog) if not line.startswith(PLAN_LINE)]


@pytest.fixture
def plan_lines_of(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """`plan_lines_of()`: the lines that told of a plan, at the default level, in the test so far."""
    return lambda: [line for line in _warnings(caplog) if line.startswith(PLAN_LINE)]


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("transformers.hf_layertracer") and record.levelname == "WARNING"
    ]
