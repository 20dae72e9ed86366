"""Whether a model is a causal language model: what comes later may not change what was said before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import UntraceableModelError
from ..modeling.wrappers import output_embeddings
from ..probes.encoding import EncodedProbe
from .layer_stack import LayerStack
from .patching import LayerForward, hidden_of, patched, with_hidden


_TOKENS = 16
# Largest difference, as a fraction of the largest logit. Positions before the changed one are computed alike, but a
# router may put them into other groups.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
_TOLERANCE_OF_HALVES = 1e-2
_BEYOND_ROUNDING = 10


def check_causal(stack: LayerStack, probes: Sequence[EncodedProbe]) -> None:
    """Refuses a model that does not predict the next token: bidirectional ones, encoders with decoders, classifiers.

    A lens and a sensitivity can be read from them, but they would mean nothing.

    Args:
        stack ([`LayerStack`]): The model.
        probes (`Sequence[EncodedProbe]`): The probes; the longest prompt is used.

    Raises:
        UntraceableModelError: A later token changes earlier logits, or there is no logit for each token.
    """
    prompt = max((probe.input_ids for probe in probes), key=len)[:_TOKENS]
    prompt = prompt if len(prompt) > 1 else prompt * 2
    # A token that the embedding knows for certain, and not the one that is there.
    others = [token for probe in probes for token in (*probe.input_ids, probe.target_id) if token != prompt[-1]]
    name = type(stack.model).__name__
    one = _logits(stack, prompt, name)
    says_so = not isinstance(stack.model, PreTrainedModel) or output_embeddings(stack.model) is not None
    if not says_so and stack.vocabulary is not None and one.shape[-1] != stack.vocabulary:
        raise UntraceableModelError(
            f"{name} is not a causal language model: its head gives {one.shape[-1]} values, not one for each token."
        )
    if not others:
        return
    other = _logits(stack, (*prompt[:-1], others[0]), name)
    difference = (one[:, :-1] - other[:, :-1]).abs().max()
    largest = one.abs().max()
    allowed = _TOLERANCE.get(one.dtype, _TOLERANCE_OF_HALVES) * largest
    if difference <= allowed:
        return
    # Where rounding alone, or chance, moves the answer to the same prompt about as far, nothing follows: MiniMax's linear
    # attention lets it grow to 4e-4 in twelve layers. The noise floor is measured and reported.
    with patched(stack.layers[:1], _rounded_otherwise):
        rounding = (one - _logits(stack, prompt, name)).abs().max()
    if difference > _BEYOND_ROUNDING * rounding:
        raise UntraceableModelError(
            f"{name} is not a causal language model: a later token changes what it says at earlier positions (by "
            f"{difference / largest:.2g} of the largest logit)."
        )


def _rounded_otherwise(_: int, forward: LayerForward) -> LayerForward:
    """A layer whose output is rounded in another way."""
    generator = torch.Generator().manual_seed(0)

    def run(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        hidden = hidden_of(output)
        noise = torch.randn(hidden.shape, generator=generator).to(hidden)
        return with_hidden(output, hidden * (1 + torch.finfo(hidden.dtype).eps * noise))

    return run


def not_run_on_tokens(name: str, error: Exception) -> UntraceableModelError:
    """What to raise where a model fails on token ids."""
    return UntraceableModelError(
        f"{name} could not be run on token ids alone, as a causal language model is "
        f"({type(error).__name__}: {error!s:.160})."
    )


def _logits(stack: LayerStack, prompt: Sequence[int], name: str) -> Tensor:
    ids = torch.tensor([list(prompt)], device=stack.input_device)
    try:
        output: Any = stack.model(input_ids=ids)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a model of any make may fail in any way when it is called like a causal LM
        raise not_run_on_tokens(name, error) from error
    logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[:2] != ids.shape:
        raise UntraceableModelError(f"{name} is not a causal language model: it gives no logits for each position.")
    return logits
