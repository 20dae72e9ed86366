"""Finds the list of decoder layers by structure, and by a forward pass where structure leaves a choice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from ..errors import UntraceableModelError
from ..logs import get_logger
from .preserve import preserved
from .wrappers import input_device, input_embeddings


logger = get_logger(__name__)

_TRACED_TOKENS = 4


def decoder_path(model: nn.Module) -> str:
    """Dotted path of the text decoder inside `model`, empty when the model is its own decoder or does not say."""
    if not isinstance(model, PreTrainedModel):
        return ""
    decoder = model.get_decoder()
    path = next((name for name, module in model.named_modules() if module is decoder), "")
    # Some heads are called decoder: a decoder has layers.
    return path if outermost_lists(decoder) else ""


def outermost_lists(module: nn.Module, prefix: str = "") -> dict[str, nn.ModuleList]:
    """The `ModuleList`s below `module` that lie in no other (experts inside a layer are not layers), by their paths."""
    found: dict[str, nn.ModuleList] = {}
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if isinstance(child, nn.ModuleList):
            found |= {path: child} if len(child) else {}
        else:
            found.update(outermost_lists(child, f"{path}."))
    return found


def search_layers(model: nn.Module, depth: int | None) -> str:
    """Dotted path of the list of decoder layers.

    Args:
        model (`nn.Module`): The unwrapped model.
        depth (`int`, *optional*): The number of layers that the configuration states.

    Returns:
        `str`: The path.

    Raises:
        UntraceableModelError: There is no list of layers, or each layer's modules lie in several lists.
    """
    path = decoder_path(model)
    lists = outermost_lists(model.get_submodule(path), f"{path}." if path else "")
    if not lists:
        raise UntraceableModelError(
            f"No list of decoder layers was found in {type(model).__name__}. If it has one, name it: "
            'layers_path="path.to.layers".'
        )
    # In a forward pass, what is called first to last, once each; without one, transformers' own marks of a layer.
    plain = [name for name, members in lists.items() if _marked(members) and len(members) == depth]
    if len(lists) == 1 or len(plain) == 1:
        return (plain or list(lists))[0]
    calls = _calls(model, lists)
    ordered = [name for name in lists if _in_order(calls.get(name, []))]
    candidates = ordered or list(lists)
    best = max(candidates, key=lambda name: (_marked(lists[name]), len(lists[name]) == depth, len(lists[name])))
    if ordered:
        _check_whole(model, best, {name: calls[name] for name in ordered}, lists)
    return best


def _marked(members: Sequence[nn.Module]) -> bool:
    return all(isinstance(member, GradientCheckpointingLayer) for member in members)


def _calls(model: nn.Module, lists: dict[str, nn.ModuleList]) -> dict[str, list[tuple[int, int]]]:
    """When the members of each list are called in one forward pass: pairs of a running number and the member's index."""
    calls: dict[str, list[tuple[int, int]]] = {}
    count = 0

    def seen(name: str, index: int) -> None:
        nonlocal count
        calls.setdefault(name, []).append((count, index))
        count += 1

    handles = [
        member.register_forward_pre_hook(lambda *_, name=name, index=index: seen(name, index))
        for name, members in lists.items()
        for index, member in enumerate(members)
    ]
    tokens = torch.ones(1, _TRACED_TOKENS, dtype=torch.long, device=input_device(model, input_embeddings(model)))
    try:
        with preserved(model), torch.no_grad():
            model(input_ids=tokens)
    except Exception as error:  # a model of any make may fail in any way; what was seen until then may do
        logger.debug(f"The forward pass that looks for the layers of {type(model).__name__} failed: {error}")
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _in_order(calls: list[tuple[int, int]]) -> bool:
    """Whether members were called, none twice and none before an earlier one. Some may be left out, as the
    cross-attention of a vision-language model is where there is no picture."""
    members = [index for _, index in calls]
    return bool(members) and members == sorted(set(members))


def _check_whole(model, best: str, calls: dict[str, list[tuple[int, int]]], lists: dict[str, nn.ModuleList]) -> None:
    """Refuses a model that keeps the modules of one layer in several lists: a member of one is only a part of a layer."""
    times = [count for count, _ in calls[best]]
    for name, other in calls.items():
        between = [count for count, _ in other]
        interleaved = len(times) > 1 and all(a < b < c for a, b, c in zip(times, between, times[1:], strict=False))
        if name != best and len(lists[name]) == len(lists[best]) and interleaved:
            raise UntraceableModelError(
                f"{type(model).__name__} keeps the parts of each layer in several lists ({best}, {name}, ...): there is no "
                "module that is one layer."
            )
