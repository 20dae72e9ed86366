"""Whether a model is a causal language model: what comes later may not change what was said before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import UntraceableModelError
from ..modeling.wrappers import output_embeddings
from ..probes.encoding import EncodedProbe
from .clean_run import CleanRun
from .layer_stack import LayerStack
from .patching import LayerForward, hidden_of, patched, with_hidden


_TOKENS = 16
# Largest difference, as a fraction of the largest logit or of a hidden state's length. Positions before the changed one
# are computed alike, but a router may put them into other groups.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
_TOLERANCE_OF_HALVES = 1e-2
_BEYOND_ROUNDING = 10


def check_causal(stack: LayerStack, probes: Sequence[EncodedProbe]) -> None:
    """Refuses a model that does not predict the next token: bidirectional ones, encoders with decoders, classifiers.

    A lens and a sensitivity can be read from them, but they would mean nothing.

    Args:
        stack ([`LayerStack`]): The model.
        probes (`Sequence[EncodedProbe]`): The probes; the beginning of the longest prompt is used.

    Raises:
        UntraceableModelError: A later token changes earlier logits, or there is no logit for each token.
    """
    prompt = max((probe.input_ids for probe in probes), key=len)[:_TOKENS]
    prompt = prompt if len(prompt) > 1 else prompt * 2
    token = _other_token(probes, prompt[-1])
    name = type(stack.model).__name__
    one = _logits(stack, prompt, name)
    says_so = not isinstance(stack.model, PreTrainedModel) or output_embeddings(stack.model) is not None
    if not says_so and stack.vocabulary is not None and one.shape[-1] != stack.vocabulary:
        raise UntraceableModelError(
            f"{name} is not a causal language model: its head gives {one.shape[-1]} values, not one for each token."
        )
    if token is None:
        return
    largest = one.abs().max()

    def apart(ids: Sequence[int]) -> float:
        return float((one[:, :-1] - _logits(stack, ids, name)[:, :-1]).abs().max() / largest)

    difference = apart((*prompt[:-1], token))
    if _looks_ahead(stack, difference, one.dtype, lambda: apart(prompt)):
        raise UntraceableModelError(
            f"{name} is not a causal language model: a later token changes what it says at earlier positions (by "
            f"{difference:.2g} of the largest logit)."
        )


def check_causal_to_the_end(stack: LayerStack, clean: CleanRun, probes: Sequence[EncodedProbe]) -> None:
    """Refuses a model that predicts the next token in short prompts and looks ahead in long ones.

    BigBird's block-sparse attention does: with short prompts it is not sparse, and causal. Hidden states are compared,
    not logits, which take gigabytes at all positions of a long prompt.

    Args:
        stack ([`LayerStack`]): The model.
        clean ([`CleanRun`]): A clean run over the longest prompt alone.
        probes (`Sequence[EncodedProbe]`): The probes.

    Raises:
        UntraceableModelError: Later tokens change the hidden states at earlier positions.
    """
    prompt = clean.input_ids
    positions = prompt.shape[1]
    token = _other_token(probes, int(prompt[0, -1]))
    if positions <= _TOKENS or token is None:
        return
    # Odd, so that it is no border between the blocks in which some models read.
    kept = positions * 2 // 3 | 1
    changed = torch.cat([prompt[:, :kept], prompt.roll(1, 1)[:, kept:]], 1)
    changed[:, -1] = token
    name = type(stack.model).__name__
    by_state = clean.states[-1].shape[1] == positions

    def said(ids: Tensor) -> Tensor:
        seen = stack.run(ids, clean.layout).states[-1] if by_state else _logits(stack, ids[0].tolist(), name)
        return seen[:, :kept].flatten(2)

    one = clean.states[-1][:, :kept].flatten(2) if by_state else said(prompt)

    def apart(ids: Tensor) -> float:
        # Position by position: the first one's hidden state is often a hundred times longer than all others.
        return float(((said(ids) - one).norm(dim=-1) / one.norm(dim=-1)).nan_to_num().max())

    difference = apart(changed)
    if _looks_ahead(stack, difference, one.dtype, lambda: apart(prompt)):
        raise UntraceableModelError(
            f"{name} is not a causal language model in prompts of {positions} tokens, as it is in short ones: later tokens "
            f"change its hidden states at earlier positions (by {difference:.2g} of their length). Ask it shorter probes."
        )


def _looks_ahead(stack: LayerStack, difference: float, dtype: torch.dtype, rounding: Callable[[], float]) -> bool:
    """Whether a difference is more than rounding alone makes.

    Args:
        stack ([`LayerStack`]): The model.
        difference (`float`): What changing later tokens has done at earlier positions.
        dtype (`torch.dtype`): What was computed in.
        rounding (`Callable`): Measures the same where nothing was changed, in a model that rounds otherwise.
    """
    if difference <= _TOLERANCE.get(dtype, _TOLERANCE_OF_HALVES):
        return False
    # Where rounding alone, or chance, moves the answer to the same prompt about as far, nothing follows: MiniMax's linear
    # attention lets it grow to 4e-4 in twelve layers. The noise floor is measured and reported.
    with patched(stack.layers[:1], _rounded_otherwise):
        return difference > _BEYOND_ROUNDING * rounding()


def _other_token(probes: Sequence[EncodedProbe], last: int) -> int | None:
    """A token that the embedding knows for certain, and not the one that is there."""
    tokens = (token for probe in probes for token in (*probe.input_ids, probe.target_id))
    return next((token for token in tokens if token != last), None)


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
