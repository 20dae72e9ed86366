"""What kind of layer each one is, in the field's terms: the kind of a layer explains its sensitivity."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn


# Fields of a configuration that name a kind for each layer.
_DECLARED = ("layer_types", "layers_block_type", "attention_layers", "attn_layers")
# What mixes positions inside a layer, by the name of a module or its class; the first that occurs counts.
_MIXERS = {
    r"(?i)mamba": "mamba",
    r"Rwkv": "rwkv",
    r"LSTM": "xlstm",
    r"RecurrentBlock": "recurrent",
    r"Delta|Lightning|LinearAttention": "linear_attention",
    r"CrossAttentionDecoderLayer": "cross_attention",
    r"Attention|Attn": "full_attention",
    r"ShortConv": "conv",
}
# A declared kind that says less than the class of the module does.
_VAGUE = "linear_attention"
_EXPERTS = re.compile(r"Experts|Router")


def layer_kinds(config: Any, layers: Sequence[nn.Module]) -> list[str]:
    """The kind of each layer: `"full_attention"`, `"sliding_attention"`, `"linear_attention"`, `"mamba"`, `"moe"`, ...

    Args:
        config (`PreTrainedConfig`, *optional*): The text model's configuration.
        layers (`Sequence[nn.Module]`): The layers.

    Returns:
        `list[str]`:
            One entry a layer: what the configuration declares, else what the classes inside the layer say, with
            `"+moe"` behind it where the layer routes to experts. A layer that none of this fits is named by its class.
    """
    lists = [getattr(config, name, None) for name in _DECLARED]
    declared = next(
        (kinds for kinds in lists if isinstance(kinds, list | tuple) and len(kinds) == len(layers)),
        [None] * len(layers),
    )
    return [_kind(config, layer, kind) for layer, kind in zip(layers, declared, strict=True)]


def _kind(config: Any, layer: nn.Module, declared: str | None) -> str:
    classes = [type(module).__name__ for module in layer.modules()]
    names = [*classes, *(name for name, _ in layer.named_children())]
    kind = str(declared) if declared is not None else None
    if kind is None or kind == _VAGUE:
        found = next((name for pattern, name in _MIXERS.items() if any(re.search(pattern, n) for n in names)), None)
        if found == "full_attention" and getattr(config, "sliding_window", None):
            found = "sliding_attention"
        # A class that says nothing more special than attention does not overrule what is declared.
        kind = kind if found is None or (kind and found.endswith("attention")) else found
    kind = kind or classes[0]
    routed = any(_EXPERTS.search(name) for name in classes)
    return f"{kind}+moe" if routed and kind != "moe" else kind
