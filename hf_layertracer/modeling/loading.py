"""Loads models for the command line, with one clear line for everything that can be wrong with a name."""

from __future__ import annotations

import torch
from huggingface_hub.errors import HfHubHTTPError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from ..errors import LayerTracerError
from .devices import default_device


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
        LayerTracerError: There is no such model, it is no causal language model or its files are not allowed.
    """
    hub = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **hub)
        model = AutoModelForCausalLM.from_pretrained(
            name, **hub, dtype=dtype, use_safetensors=None if allow_pickle else True
        )
    except (OSError, ValueError, HfHubHTTPError, KeyError) as error:
        raise LayerTracerError(f"Could not load {name!r}: {_first_lines(error)}") from error
    return model.eval().to(default_device()), tokenizer


def load_config(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> PreTrainedConfig:
    """A model's configuration.

    Args:
        name (`str`): Hub id, local folder or configuration file.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run code that comes with the model.

    Returns:
        `PreTrainedConfig`: The configuration.

    Raises:
        LayerTracerError: There is no such model.
    """
    try:
        return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, HfHubHTTPError, KeyError) as error:
        raise LayerTracerError(f"Could not load {name!r}: {_first_lines(error)}") from error


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
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (ValueError, KeyError) as error:
        raise LayerTracerError(f"Could not load {name!r}: {_first_lines(error)}") from error
    model.tie_weights()
    return model


def _first_lines(error: Exception) -> str:
    """An error's message on one line: transformers' are paragraphs, whose beginning says what is wrong."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]}..."
