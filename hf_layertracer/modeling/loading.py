"""Loads models for the command line, with one clear line for everything that can be wrong with a name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from ..checks import one_of
from ..errors import LayerTracerError
from .devices import default_device, warn_if_emulated
from .names import ADAPTER_FILE, CONFIG_FILE, check_name
from .soundness import check_loaded, check_quantization, check_weights


# What a model can be run in; others (float8, integers) only store weights.
DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")


def load_model(
    name: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    dtype: str = "auto",
) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """Loads a causal language model and its tokenizer, onto an accelerator where there is one.

    Args:
        name (`str`): Hub id or local folder.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run code that comes with the model.
        allow_pickle (`bool`, *optional*, defaults to `False`): Load weights other than safetensors, which can run code.
        dtype (`str`, *optional*, defaults to `"auto"`): Data type of the weights; that of the files by default.

    Returns:
        `tuple[nn.Module, PreTrainedTokenizerBase]`: The model, in evaluation mode, and its tokenizer.

    Raises:
        LayerTracerError: There is no such model, it is no causal language model, its files are not allowed, or they do
            not hold all of its weights.
    """
    one_of("dtype", dtype, DTYPES)
    hub: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    check_quantization(load_config(name, **hub), name)
    with _one_line(name):
        tokenizer = AutoTokenizer.from_pretrained(name, **hub)
        model, info = AutoModelForCausalLM.from_pretrained(
            name,
            **hub,
            dtype=dtype,
            use_safetensors=None if allow_pickle else True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
        )
    check_loaded(info, name)
    check_weights(model, name)
    device = default_device()
    warn_if_emulated(model.dtype, device)
    return model.eval().to(device), tokenizer


def load_config(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> PreTrainedConfig:
    """A model's configuration.

    Args:
        name (`str`): Hub id, local folder or configuration file; of a folder with an adapter, its base model is meant.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run code that comes with the model.

    Returns:
        `PreTrainedConfig`: The configuration.

    Raises:
        LayerTracerError: There is no such model.
    """
    check_name(name)
    with _one_line(name):
        base = _base_of_adapter(name)
        return AutoConfig.from_pretrained(base or name, revision=revision, trust_remote_code=trust_remote_code)


def load_skeleton(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> nn.Module:
    """A model's structure without its weights: enough to count parameters and to plan.

    Args:
        name (`str`): Hub id or local folder.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run code that comes with the model.

    Returns:
        `nn.Module`: The model on the meta device.

    Raises:
        LayerTracerError: There is no such model, or it is no causal language model.
    """
    config = load_config(name, revision=revision, trust_remote_code=trust_remote_code)
    with _one_line(name):
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
        model.tie_weights()
    return model


def _base_of_adapter(name: str) -> str | None:
    """The model that a folder's adapter was trained on; `None` for a folder with its own model, and on the Hub."""
    adapter = Path(name) / ADAPTER_FILE
    if not os.path.isfile(adapter) or os.path.isfile(Path(name) / CONFIG_FILE):
        return None
    return json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Turns whatever happens while other people's files are read into one line that names the model."""
    try:
        yield
    except (LayerTracerError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # a broken config or weight file makes transformers fail in any way
        # transformers' messages are paragraphs, whose beginning says what is wrong.
        said = " ".join(str(error).split())
        kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        raise LayerTracerError(f"Could not load {name!r}: {kind}{said[:300]}{'...' * (len(said) > 300)}") from error
