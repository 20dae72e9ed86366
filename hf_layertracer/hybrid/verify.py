"""Compares what was built with its donors by running both, with weights read from disk as each module needs them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import LayerTracerError
from ..modeling import find_parts
from .blueprint import Blueprint
from .donors import Donor
from .streaming import streamed


# What two ways of computing the same may differ by in float32, relative to the largest logit.
_ROUNDING = 1e-5
# What a layer's output may differ by, in units of the data type's own precision: both classes round some ten times.
_LAYER_ROUNDING = 16
_TOKENS = 8
_SEED = 0


def layer_outputs(
    model: PreTrainedModel, layers_path: str, wanted: Collection[int], cancelled: Callable[[], bool] = lambda: False
) -> dict[int, Tensor]:
    """What some layers make of the same random hidden states, each at its place in a forward pass.

    Args:
        model (`PreTrainedModel`): The model.
        layers_path (`str`): Where its layers are.
        wanted (`Collection[int]`): Layers to watch.
        cancelled (`Callable[[], bool]`, *optional*): Asked before each of them whether nobody needs it any more.

    Returns:
        `dict[int, Tensor]`: The output of each, of shape `(1, tokens, hidden_size)`.

    Raises:
        CancelledError: Nobody needs it any more.
    """
    parts = find_parts(model, layers_path)
    outputs: dict[int, Tensor] = {}
    handles = []
    for index in sorted(set(wanted)):

        def enter(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            if cancelled():
                raise CancelledError
            hidden = args[0] if args else kwargs["hidden_states"]
            given = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(_SEED)).to(hidden)
            return ((given, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": given})

        def leave(module: nn.Module, args: tuple, output: Any, index: int = index) -> None:
            outputs[index] = (output[0] if isinstance(output, tuple) else output).detach().clone()

        handles.append(parts.layers[index].register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(parts.layers[index].register_forward_hook(leave))
    try:
        logits(model)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def logits(model: PreTrainedModel, tokens: Tensor | None = None) -> Tensor:
    """The logits of a sequence of token ids.

    Args:
        model (`PreTrainedModel`): The model.
        tokens (`Tensor`, *optional*): Token ids of shape `(1, tokens)`; a few drawn from the vocabulary by default.

    Returns:
        `Tensor`: Of shape `(1, tokens, vocabulary)`.
    """
    if tokens is None:
        size = model.config.get_text_config(decoder=True).vocab_size
        tokens = torch.randint(size, (1, _TOKENS), generator=torch.Generator().manual_seed(_SEED))
    with torch.no_grad():
        return model(input_ids=tokens, use_cache=False).logits


def donor_outputs(
    stack: Sequence[tuple[Donor, int]], dtype: torch.dtype, scratch: Path, cancelled: Callable[[], bool]
) -> list[Tensor | None]:
    """What the layers of a stack compute in their donors.

    Args:
        stack (`Sequence[tuple[Donor, int]]`): Donor and layer of each of them.
        dtype (`torch.dtype`): Data type to run in.
        scratch (`Path`): Folder for what transformers converts on the way.
        cancelled (`Callable[[], bool]`): As [`layer_outputs`] takes it.

    Returns:
        `list[Tensor]`: By layer of the stack, as [`layer_outputs`] has it; `None` where the donor does not run it.
    """
    found: dict[Donor, dict[int, Tensor]] = {}
    for donor in dict.fromkeys(donor for donor, _ in stack):
        layers = {layer for owner, layer in stack if owner is donor}
        with streamed(donor, dtype, scratch, layers) as model:
            found[donor] = layer_outputs(model, donor.parts.layers_path, layers, cancelled)
    return [found[donor].get(layer) for donor, layer in stack]


def verify_layers(folder: Path, plan: Blueprint, theirs: Sequence[Tensor | None]) -> None:
    """Checks that layers taken whole compute, to the bit, what they compute in their donors.

    Args:
        folder (`Path`): The hybrid; what transformers converts on the way lies there meanwhile.
        plan ([`Blueprint`]): What it is made of.
        theirs (`Sequence[Tensor]`): What [`donor_outputs`] found, in the data type of the hybrid.

    Raises:
        LayerTracerError: A layer computes something else.
    """
    with streamed(Donor(folder.name, folder), plan.dtype, folder) as model:
        ours = layer_outputs(model, plan.parts.layers_path, range(len(plan.stack)))
    for index, ((donor, layer), output) in enumerate(zip(plan.stack, theirs, strict=True)):
        if index not in ours or output is None or not torch.equal(ours[index], output):
            raise LayerTracerError(
                f"Layer {index} does not compute what layer {layer} of {donor.name} does. The hybrid was not written."
            )


def verify_class(donor: Donor, unmodified: Donor, tokens: Tensor, dtype: torch.dtype, scratch: Path) -> str:
    """Compares the logits of the unmodified model with the donor's.

    The weights as they are saved must be the same function: in float32 the logits are equal up to its rounding. In a
    smaller data type the two classes may round at other places, by no more than twice the donor's own rounding.

    Args:
        donor ([`Donor`]): The model in its own class.
        unmodified ([`Donor`]): The same in the other class.
        tokens (`Tensor`): Token ids of shape `(1, tokens)`.
        dtype (`torch.dtype`): Data type of both.
        scratch (`Path`): Folder for what transformers converts on the way.

    Returns:
        `str`: What was compared, and with which result.

    Raises:
        LayerTracerError: They are not the same.
    """
    found: dict[torch.dtype, tuple[Tensor, Tensor]] = {}
    for computed in dict.fromkeys((torch.float32, dtype)):
        pair = []
        for place in (donor, unmodified):
            with streamed(place, computed, scratch) as model:
                pair.append(logits(model, tokens).float())
                architecture = type(model).__name__
        found[computed] = (pair[0], pair[1])
    exact = found[torch.float32][0]
    largest = exact.abs().max().item()
    rounding = _ROUNDING * largest if dtype == torch.float32 else (found[dtype][0] - exact).abs().max().item()
    apart = {computed: (pair[0] - pair[1]).abs().max().item() for computed, pair in found.items()}
    said = (
        f"logits of the model with all its attention, as {architecture}: largest difference from the donor's "
        + " and ".join(f"{value:.3g} in {str(computed).removeprefix('torch.')}" for computed, value in apart.items())
        + f", largest logit {largest:.3g}"
    )
    if not (apart[torch.float32] <= _ROUNDING * largest and apart[dtype] <= 2 * rounding):
        raise LayerTracerError(f"Refused, {said}. Try `dtype: float32`.")
    return said


def verify_layers_of_class(
    donor: Donor, unmodified: Donor, layers_path: str, dtype: torch.dtype, scratch: Path
) -> list[str]:
    """Compares each layer of the unmodified model in the other class with the donor's, on the same input.

    Args:
        donor ([`Donor`]): The model in its own class.
        unmodified ([`Donor`]): The same in the other class.
        layers_path (`str`): Where the layers of the other class are.
        dtype (`torch.dtype`): Data type of both.
        scratch (`Path`): Folder for what transformers converts on the way.

    Returns:
        `list[str]`: By layer, what was compared and with which result.

    Raises:
        LayerTracerError: A layer computes something else.
    """
    every = range(donor.parts.num_layers)
    found = []
    for place, path in ((unmodified, layers_path), (donor, donor.parts.layers_path)):
        with streamed(place, dtype, scratch) as model:
            found.append(layer_outputs(model, path, every))
    worst = 0.0
    for index in every:
        ours, theirs = (outputs[index].double() for outputs in found)
        apart = ((ours - theirs).abs().max() / theirs.abs().max()).item()
        if not apart <= _LAYER_ROUNDING * torch.finfo(dtype).eps:
            raise LayerTracerError(
                f"Layer {index} of {donor.name} computes something else in the other class: its output differs by "
                f"{apart:.2g} of the largest value. The hybrid was not written. Try `dtype: float32`."
            )
        worst = max(worst, apart)
    if worst == 0:
        return ["output bit-equal to the donor's layer on the same input"] * len(every)
    # One bound for all, so that layers that are alike stay one row of a table.
    return [f"output within {worst:.1g} of the largest value of the donor's layer on the same input"] * len(every)
