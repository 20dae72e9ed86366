"""Whether replay is to be believed for a model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor

from .clean_run import CleanRun
from .layer_stack import LayerStack


# Two ways through the same kernels differ by rounding alone; a wrong replay differs by far more.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
ROWS = 3  # that run at once from each layer
_ROWS_CHECKED = 8  # two that come first, and two layers with three rows each
_FEWEST = 2  # starts


def tolerance(dtype: torch.dtype) -> float:
    """How far two ways of computing a probability may differ in a model of this data type."""
    return _TOLERANCE.get(dtype, _TOLERANCE[torch.float32])


def moved(one: Tensor, other: Tensor) -> float:
    """How much of the probability lies on other tokens in one output than in another: the most of all rows, 0 to 1.

    It means the same however many tokens an output is spread over. No single token's probability changes by much where
    none is likely, and the likeliest one's share of itself takes the rounding of bfloat16 for an error.

    Args:
        one, other (`Tensor`): Logits of shape `(..., vocabulary)`.

    Returns:
        `float`: The total variation distance; NaN where logits are.
    """
    return float((one.softmax(-1) - other.softmax(-1)).abs().sum(-1).max()) / 2


def check_replay(
    stack: LayerStack,
    clean: CleanRun,
    fits: Callable[[int], int] | None = None,
    starts: int | None = None,
    seed: int = 0,
) -> str | None:
    """Checks replay against the model's own output before it is believed, at the length at which it will be used.

    Two prompts come back as three rows in another order, as draws do: a layer that hands more than the hidden state on to
    the next one would hand on what belongs to other rows.

    Args:
        stack ([`LayerStack`]): The model's layers.
        clean ([`CleanRun`]): A clean run. Where its rows do not differ, its prompt is run beside another one.
        fits (`Callable`, *optional*):
            How many rows of a length fit into memory; the prompt is cut until as many do as are run here.
        starts (`int`, *optional*): Start from this many layers, rather than from every one.
        seed (`int`, *optional*, defaults to `0`): Seed of their choice, which differs between lengths.

    Returns:
        `str` or `None`: Why replay is not to be used, or `None` where it reproduces the clean output.
    """
    pair, rows = _two_prompts(stack, clean, fits), [1, 0, 1]
    reference = pair.logits[rows]
    # From the last but one, the last layer runs alone: whatever any other one hands on beside the hidden state is missing.
    chosen, last = list(range(stack.num_layers)), stack.num_layers - 2
    if starts is not None and starts < stack.num_layers:
        rng = np.random.default_rng((seed, pair.input_ids.shape[1]))
        chosen = sorted({*rng.choice(last, starts - 1, replace=False).tolist(), last})
    for index in chosen:
        # Two layers at once where there are two: the second runs on the rows of the first and on no others. Of few layers,
        # only the cheapest pair.
        together = 1 if starts == _FEWEST and index != last else 2
        answers = [state[rows] for state in pair.states[index + 1 : index + 1 + together]]
        try:
            logits = stack.replay(pair, index, answers, pair.input_ids[rows])
        except Exception as error:  # an architecture may fail in any way here: the slow path does not depend on it
            if should_reduce_batch_size(error):
                raise
            return f"running only the layers after layer {index} failed ({type(error).__name__}: {error!s:.120})"
        if logits.shape[1:] != reference.shape or not torch.isfinite(logits).any():
            return f"running only the layers after layer {index} gave no usable output"
        difference = moved(logits, reference)
        if not difference <= tolerance(pair.states[-1].dtype):
            return (
                f"running only the layers after layer {index} changes the output (by {difference:.2g} in probability)"
            )
    return None


def _two_prompts(stack: LayerStack, clean: CleanRun, fits: Callable[[int], int] | None) -> CleanRun:
    """A clean run over two prompts that differ: rows of the one that was made, where there are such."""
    prompt = clean.input_ids[:1]
    while fits is not None and prompt.shape[1] > 2 and fits(prompt.shape[1]) < _ROWS_CHECKED:
        prompt = prompt[:, : prompt.shape[1] // 2]
    differs = (clean.input_ids != clean.input_ids[:1]).any(1).nonzero()
    if len(differs) and prompt.shape[1] == clean.input_ids.shape[1]:
        return clean.rows([0, int(differs[0])])
    return stack.run(torch.cat([prompt, prompt.roll(1, 1)]), clean.layout)


def depends_on_batch(stack: LayerStack, clean: CleanRun) -> bool:
    """Whether the output for a prompt depends on the other prompts in its batch, as with a limited capacity of experts.

    Args:
        stack ([`LayerStack`]): The model's layers.
        clean ([`CleanRun`]): A clean run over one prompt.

    Returns:
        `bool`: Whether it does.
    """
    call = clean.layout.call
    others = [clean.input_ids.roll(shift, 1) for shift in (1, 2)]
    try:
        logits = stack.logits(torch.cat([*others, clean.input_ids]), call)[-1:]
    except Exception as error:  # an architecture may fail in any way here, and may yet run on one prompt
        if should_reduce_batch_size(error):
            raise
        return True
    allowed = tolerance(clean.states[-1].dtype)
    apart = moved(logits, clean.logits)
    if apart <= allowed:
        return False
    # A model that is random differs from itself, too.
    return not apart <= allowed + 2 * moved(stack.logits(clean.input_ids, call), clean.logits)
