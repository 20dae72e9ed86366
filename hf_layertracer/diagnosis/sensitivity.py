"""Layer Sensitivity by measurement: disturb every layer, compare the outputs (arXiv 2605.11416)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor

from ..config import DiagnosisConfig
from ..logs import get_logger
from .divergence import jensen_shannon
from .perturbation import dimension_mask, noise_like
from .replay import CleanRun, LayerStack


logger = get_logger(__name__)

# Two ways through the same kernels differ by rounding alone; a wrong replay differs by far more.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}


_ROWS_CHECKED = 8  # two that come first, and two layers with three rows each


@dataclass(frozen=True)
class Draw:
    """One random disturbance of one probe, the same in every layer.

    Args:
        probe (`int`): Number of the probe among all probes.
        repeat (`int`): Number of the repeat, from 0.
        repeats (`int`): Repeats of each probe, so that no two draws have the same `number`.
    """

    probe: int
    repeat: int
    repeats: int

    @property
    def number(self) -> int:
        return self.probe * self.repeats + self.repeat


class Disturbance:
    """What is done to the layers' outputs in one batch, whose rows are draws.

    No two probes share a draw: masks differ far more in what they do than probes do, so every further mask makes the
    mean over probes more certain.

    Args:
        config ([`DiagnosisConfig`]): Says which disturbance.
        width (`int`): Size of the hidden state's last dimension.
        draws (`Sequence[Draw]`): The draw of each row.
    """

    def __init__(self, config: DiagnosisConfig, width: int, draws: Sequence[Draw]):
        self.config = config
        self.draws = draws
        if config.perturbation == "mask":
            masks = [dimension_mask(width, config.mask_ratio, config.diagnosis_seed, draw.number) for draw in draws]
            self.masks = torch.stack(masks)

    def __call__(self, layer: int, before: Tensor, after: Tensor) -> Tensor:
        """Disturbs one layer's output.

        Args:
            layer (`int`): Index of the layer.
            before (`Tensor`): Its input, of shape `(rows, positions, ..., width)`.
            after (`Tensor`): Its output, of the same shape.

        Returns:
            `Tensor`: What the layer answers instead, of the same shape.
        """
        if self.config.perturbation == "skip":
            return before
        if self.config.perturbation == "mask":
            masks = self.masks.to(after.device)
            return after.masked_fill(masks.view(len(masks), *[1] * (after.ndim - 2), masks.shape[-1]), 0)
        seeds = [(self.config.diagnosis_seed, draw.repeat, layer, draw.probe) for draw in self.draws]
        return after + noise_like(after, self.config.noise_scale, seeds)


def check_replay(stack: LayerStack, clean: CleanRun, fits: Callable[[int], int] | None = None) -> str | None:
    """Checks suffix replay against the model's own output, from every layer, before it is believed.

    Two prompts are run and come back as three rows in another order, as draws do: a layer that hands more than the
    hidden state on to the next one would hand on what belongs to other rows.

    Args:
        stack ([`LayerStack`]): The model's layers.
        clean ([`CleanRun`]): The latest clean run; its first probe is used.
        fits (`Callable`, *optional*):
            How many rows of a length fit into memory; the probe is cut until as many do as are run here.

    Returns:
        `str` or `None`: Why replay is not to be used, or `None` where it reproduces the clean output.
    """
    prompt, rows = clean.input_ids[:1], [1, 0, 1]
    while fits is not None and prompt.shape[1] > 2 and fits(prompt.shape[1]) < _ROWS_CHECKED:
        prompt = prompt[:, : prompt.shape[1] // 2]
    clean = stack.clean(torch.cat([prompt, prompt.roll(1, 1)]))
    tolerance = TOLERANCE.get(clean.states[-1].dtype, 1e-3)
    # Logits are compared up to a constant: the softmax does not see one.
    reference = clean.logits[rows].log_softmax(-1).exp()
    for index in range(stack.num_layers):
        # Two layers at once where there are two: the second runs on the rows of the first and on no others.
        answers = [state[rows] for state in clean.states[index + 1 : index + 3]]
        try:
            logits = stack.resume(index, answers, clean.input_ids[rows])
        except Exception as error:  # an architecture may fail in any way here: the slow path does not depend on it
            if should_reduce_batch_size(error):
                raise
            return f"running only the layers after layer {index} failed ({type(error).__name__}: {error!s:.120})"
        if logits.shape[1:] != reference.shape or not torch.isfinite(logits).any():
            return f"running only the layers after layer {index} gave no usable output"
        difference = float((logits.softmax(-1) - reference).abs().max())
        if not difference <= tolerance:
            return (
                f"running only the layers after layer {index} changes the output (by {difference:.2g} in probability)"
            )
    return None


def measure_batch(
    stack: LayerStack,
    clean: CleanRun,
    config: DiagnosisConfig,
    draws: Sequence[Draw],
    positions: Sequence[int],
    rows: int,
    replay: bool,
    progress: Callable[[int], None],
) -> np.ndarray:
    """The divergence that each draw causes in each layer, for draws on one batch of probes.

    Args:
        stack ([`LayerStack`]): The model's layers.
        clean ([`CleanRun`]): The undisturbed run of the batch.
        config ([`DiagnosisConfig`]): Says how layers are disturbed.
        draws (`Sequence[Draw]`): What to measure.
        positions (`Sequence[int]`): Row of each draw's probe in `clean`.
        rows (`int`): The most rows in one forward pass; halved where memory runs out all the same.
        replay (`bool`): Whether only the layers after the disturbed one run.
        progress (`Callable[[int], None]`): Called with the number of values just measured.

    Returns:
        `np.ndarray`: Jensen-Shannon divergences in bits, of shape `(layers, draws)`.
    """
    values = np.empty((stack.num_layers, len(draws)))
    start = 0
    while start < len(draws):
        chunk = slice(start, min(start + rows, len(draws)))
        try:
            values[:, chunk] = _measure_rows(
                stack, clean, config, draws[chunk], positions[chunk], rows, replay, progress
            )
        except RuntimeError as error:
            if not should_reduce_batch_size(error) or rows == 1:
                raise
            rows = min(rows, (chunk.stop - start) * stack.num_layers) // 2
            logger.warning_once(f"Out of memory: the diagnosis goes on with batches of {rows} rows.")
            continue
        start = chunk.stop
    return values


def _measure_rows(
    stack: LayerStack,
    clean: CleanRun,
    config: DiagnosisConfig,
    draws: Sequence[Draw],
    positions: Sequence[int],
    limit: int,
    replay: bool,
    progress: Callable[[int], None],
) -> np.ndarray:
    rows = torch.as_tensor(positions)
    ids = clean.input_ids[rows.to(clean.input_ids.device)]
    reference = clean.logits[rows.to(clean.logits.device)]
    disturb = Disturbance(config, clean.states[-1].shape[-1], draws)
    divergences = []
    # As many layers share a forward pass as fill it: small batches leave most of a machine idle.
    layers_per_pass = max(1, limit // len(draws)) if replay else 1
    for first in range(0, stack.num_layers, layers_per_pass):
        layers = range(first, min(first + layers_per_pass, stack.num_layers))
        if replay:
            states = [state[rows.to(state.device)] for state in clean.states[first : layers.stop + 1]]
            answers = [disturb(layer, *states[layer - first : layer - first + 2]) for layer in layers]
            outputs = stack.resume(first, answers, ids)
        else:
            outputs = stack.through(first, partial(disturb, first), ids)[None]
        divergences += [jensen_shannon(reference, logits).double().cpu() for logits in outputs]
        progress(len(draws) * len(layers))
    return torch.stack(divergences).numpy()
