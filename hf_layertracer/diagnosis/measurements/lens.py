"""The logit lens: what the model would answer if it stopped after each layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...records import Lens, LensWithoutNorm
from ..clean_run import CleanRun
from ..controls import control_targets, left_out, summarise_control
from ..layer_stack import LayerStack
from ..replay_check import tolerance
from ..summary import summarise_lens, summarise_max_ratio, summarise_task_particle
from .base import Batch, Measurement, Subject


# Tokens that are kept of each reading, and the most readings of which all are: a report should stay a small file.
_LIKELY, _MOST_KEPT = 3, 20_000


class LensCurves(Measurement):
    """The lens curve of each probe, the task particles that follow from them, and what controls make of both."""

    name = "lens"

    def start(self, subject: Subject) -> int:
        shape = (len(subject.probes), subject.num_layers + 1)
        self.curves, self.own_curves = np.zeros(shape), np.zeros(shape)
        self.likely_tokens, self.likely = np.zeros((*shape, _LIKELY), dtype=np.int64), np.zeros((*shape, _LIKELY))
        self.problem: str | None = None
        self.errors: list[float] = []
        self.others = control_targets(subject.probes, subject.config.diagnosis_seed)
        self.other_curves = np.zeros((shape[0], 0 if self.others is None else self.others.shape[1], shape[1]))
        self.norm = subject.stack.final_norm
        self.normless = np.zeros(shape)
        self.whole_prompts = False
        return super().start(subject)

    def observe(self, batch: Batch) -> None:
        if self.problem is not None:
            return
        self.problem = self._read(batch)
        if self.problem is not None and not self.whole_prompts:
            # What follows the layers may need more than one position, or the tokens themselves.
            self.whole_prompts = True
            self.problem = self._read(batch)

    def _read(self, batch: Batch) -> str | None:
        """Reads the lens, or says why it is not valid."""
        try:
            others = None if self.others is None else torch.from_numpy(self.others[batch.members])
            reading = self._reading(batch, others=others, likely=_LIKELY)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # an architecture may fail in any way here, and the rest of the report does not
            return f"reading the hidden states failed ({type(error).__name__}: {error!s:.120})"
        if not reading.error <= tolerance(batch.clean.states[-1].dtype) or not np.isfinite(reading.probability).all():
            self.errors = [reading.error]
            return (
                f"the reading at the last layer is not the model's own output (it differs by {reading.error:.2g} "
                "of its maximum)"
            )
        self.errors.append(reading.error)
        self.curves[batch.members] = reading.probability
        self.likely_tokens[batch.members], self.likely[batch.members] = reading.likely_tokens, reading.likely
        self.own_curves[batch.members] = reading.own_probability
        self.other_curves[batch.members] = reading.others
        self._read_without_norm(batch)
        return None

    def _reading(self, batch: Batch, **more: Any) -> LensReading:
        return read_lens(self.subject.stack, batch.clean, batch.targets, batch.rows, self.whole_prompts, **more)

    def _read_without_norm(self, batch: Batch) -> None:
        if self.norm is None:
            return
        try:
            with left_out(self.norm):
                self.normless[batch.members] = np.nan_to_num(self._reading(batch).probability)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # what follows may need more of the norm than its answer: then there is no such check
            self.norm = None

    def result(self) -> dict[str, Any]:
        tasks, config = self.subject.tasks, self.subject.config
        if self.problem is not None:
            lens = Lens(valid=False, reason=self.problem, error=self.errors[-1] if self.errors else None)
            return {"lens": lens, "task_particle": summarise_task_particle(np.empty((0, 0)), tasks, config)}
        particle = summarise_task_particle(self.curves, tasks, config)
        particle.max_ratio = summarise_max_ratio(self.own_curves, config)
        lens = summarise_lens(self.curves, tasks, None, max(self.errors))
        self._add_tokens(lens)
        if self.others is not None:
            lens.control = summarise_control(self.curves, self.other_curves, particle.per_probe, config)
        if self.norm is not None:
            without = summarise_task_particle(self.normless, tasks, config)
            lens.without_norm = LensWithoutNorm(
                mean_probability=summarise_lens(self.normless, tasks, None, 0).mean_probability,
                layer=without.layer,
                unresolved=without.unresolved or 0,
            )
        return {"lens": lens, "task_particle": particle}

    def _add_tokens(self, lens: Lens) -> None:
        """What the model would say after each layer, where there is a tokenizer to read it with."""
        tokenizer = self.subject.tokenizer
        if tokenizer is None:
            return
        text = {int(token): tokenizer.decode([int(token)]) for token in np.unique(self.likely_tokens)}
        lens.top_tokens = [[text[int(token)] for token in row] for row in self.likely_tokens[..., 0]]
        if self.likely[..., 0].size <= _MOST_KEPT:
            lens.likely = [
                [
                    [(text[int(token)], round(float(value), 4)) for token, value in zip(*cell, strict=True)]
                    for cell in zip(*row, strict=True)
                ]
                for row in zip(self.likely_tokens, self.likely, strict=True)
            ]


@dataclass(frozen=True)
class LensReading:
    """What the lens reads for one batch of probes.

    Args:
        probability (`np.ndarray`): Probability of each probe's target, of shape `(probes, layers + 1)`.
        own_probability (`np.ndarray`): That of the token which the model itself predicts, of the same shape.
        others (`np.ndarray`): That of other tokens, of shape `(probes, tokens, layers + 1)`.
        likely_tokens (`np.ndarray`): The likeliest tokens at each layer, of shape `(probes, layers + 1, tokens)`.
        likely (`np.ndarray`): Their probabilities, the highest first.
        error (`float`):
            Largest difference between the reading at the last layer and the model's own output, as a fraction of the
            largest probability in that output.
    """

    probability: np.ndarray
    own_probability: np.ndarray
    others: np.ndarray
    likely_tokens: np.ndarray
    likely: np.ndarray
    error: float


def lens_logits(stack: LayerStack, run: CleanRun, rows: slice, depths: slice, whole_prompts: bool = False) -> Tensor:
    """What the lens reads at some depths, in one pass.

    Args:
        stack ([`LayerStack`]): The model's layers.
        run ([`CleanRun`]): The pass whose hidden states are read.
        rows (`slice`): Which of its probes.
        depths (`slice`): Which of its `states`.
        whole_prompts (`bool`, *optional*, defaults to `False`): As [`read_lens`] takes it.

    Returns:
        `Tensor`: Logits of shape `(depths, rows, vocabulary)`.
    """
    device = run.states[-1].device
    states = [(state[rows] if whole_prompts else state[rows, -1:]).to(device) for state in run.states[depths]]
    prompts = run.input_ids[rows].repeat(len(states), 1) if whole_prompts else None
    return stack.unembed(run, torch.cat(states), prompts).unflatten(0, (len(states), -1))


def blocks(probes: int, depths: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Probes and depths whose hidden states the lens reads at once.

    Args:
        probes (`int`): How many probes there are.
        depths (`int`): How many depths.
        most (`int`): The most hidden states to read at once.

    Yields:
        `tuple[slice, slice]`: Some probes, and some depths: as many as fill a pass.
    """
    for start in range(0, probes, most):
        rows = slice(start, min(start + most, probes))
        together = max(1, most // (rows.stop - rows.start))
        for first in range(0, depths, together):
            yield rows, slice(first, min(first + together, depths))


def read_lens(
    stack: LayerStack,
    clean: CleanRun,
    targets: Tensor,
    rows: int,
    whole_prompts: bool = False,
    others: Tensor | None = None,
    likely: int = 0,
) -> LensReading:
    """Lens probabilities p[i, l] = softmax(U(N(h[i, l])))[target_i], with the model's own final norm and head.

    Each hidden state goes through the final norm as itself: the norm's scale is computed anew from it, never reused
    from the last layer's.

    Args:
        stack ([`LayerStack`]): The model's layers.
        clean ([`CleanRun`]): The clean run of the batch.
        targets (`Tensor`): Target token of each probe, of shape `(probes,)`.
        rows (`int`): The most hidden states to read at once.
        whole_prompts (`bool`, *optional*, defaults to `False`):
            Whether what follows the layers is given all positions and the tokens, rather than the last position alone.
        others (`Tensor`, *optional*): Further tokens of each probe, of shape `(probes, tokens)`.
        likely (`int`, *optional*, defaults to `0`): How many of the likeliest tokens to keep of each reading.

    Returns:
        [`LensReading`]: The readings; at the last layer they should be the model's own output.
    """
    depth, probes = len(clean.states), len(targets)
    wanted, own = targets.to(clean.logits.device), clean.logits.softmax(-1)
    further = wanted.new_zeros(probes, 0) if others is None else others.to(wanted.device)
    asked = torch.cat([wanted[:, None], own.argmax(-1)[:, None], further], 1)
    found = np.empty((probes, asked.shape[1], depth))
    best_tokens, best_values = np.zeros((probes, depth, likely), dtype=np.int64), np.zeros((probes, depth, likely))
    gaps = []
    for at, group in blocks(probes, depth, rows):
        read = lens_logits(stack, clean, at, group, whole_prompts).softmax(-1)
        found[at, :, group] = read.gather(-1, asked[at].expand(len(read), -1, -1)).permute(1, 2, 0).double().cpu()
        if likely:
            best = read.topk(min(likely, read.shape[-1]), -1)
            best_values[at, group, : best.values.shape[-1]] = best.values.transpose(0, 1).double().cpu()
            best_tokens[at, group, : best.values.shape[-1]] = best.indices.transpose(0, 1).cpu()
        if group.stop == depth:
            gaps.append((read[-1] - own[at]).abs().amax(-1) / own[at].amax(-1))
    error = float(torch.cat(gaps).max())
    return LensReading(found[:, 0], found[:, 1], found[:, 2:], best_tokens, best_values, error)
