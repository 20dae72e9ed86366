"""Tiny models, datasets and arguments to train with in a second."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from matplotlib.figure import Figure
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainingArguments

from hf_layertracer import LayerTracerConfig


SPECIALS = ["<pad>", "<unk>", "<eos>"]
CHARACTERS = SPECIALS + sorted(string.ascii_letters + string.digits + " .,'?!:\n-")
VOCABULARY = 80
SENTENCES = [
    f"{who} {what} the {which} {thing}."
    for who in ("A cat", "The dog", "My uncle", "Nobody")
    for what in ("sees", "wants")
    for which, thing in (("old", "house"), ("red", "car"), ("new", "ball"))
]

Weights = dict[str, torch.Tensor]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Threads that wait for one another take longer than these models."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _plain_picture(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture takes a second to draw, longer than the training: an empty one will do where it is not looked at."""
    if "real_picture" not in request.fixturenames:
        monkeypatch.setattr("hf_layertracer.report.figure.draw_report", lambda report: Figure((1, 1)))


@pytest.fixture
def real_picture() -> None:
    """For a test that wants the picture as it is."""


@pytest.fixture(scope="session")
def make_model() -> Callable[..., LlamaForCausalLM]:
    """`make_model(**changes)`: a random Llama of four layers; the same weights at every call."""

    def make(**changes: Any) -> LlamaForCausalLM:
        settings = {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "attention_dropout": 0.1,  # so that a random state that was disturbed shows in the weights
            "pad_token_id": 0,
            "bos_token_id": None,
            "eos_token_id": 2,
        }
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return LlamaForCausalLM(LlamaConfig(**{**settings, **changes}))

    return make


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a character."""
    vocabulary = {character: index for index, character in enumerate(CHARACTERS)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>", model_max_length=128
    )


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
