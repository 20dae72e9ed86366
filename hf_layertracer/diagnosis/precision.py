"""Whether layers may be replayed in bfloat16: where that is fast, and only as long as a sample agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size

from ..config import DiagnosisConfig
from ..modeling.devices import is_fast_in_bfloat16
from .divergence import jensen_shannon
from .layer_stack import LayerStack
from .perturbations import Draw, Perturbation


if TYPE_CHECKING:
    from .measurements import Batch, Subject


# Half of the standard error that a diagnosis has by default.
TOLERANCE = 0.01
_DRAWS = 4  # at each end
_LAYERS = 8
# Narrower matrix products are over before their data type matters.
_SMALLEST_WIDTH = 256


class Precision:
    """The data type in which one measurement replays layers.

    Args:
        subject ([`Subject`]): What is diagnosed; its settings say what is wanted.
    """

    def __init__(self, subject: Subject):
        self.stack = subject.stack
        self.seed = subject.config.diagnosis_seed
        self.dtype = wanted_dtype(subject.stack, subject.config, subject.clean.width)
        """The data type; `None` is the model's own."""
        lengths = [len(probe.input_ids) for probe in subject.probes]
        self.unchecked = {min(lengths), max(lengths)}  # prompts are checked at both ends of their lengths
        self.differences: list[float] = []
        """Of the draws of the sample: how far the two data types are apart, in bits."""
        self.problem: str | None = None
        """Why bfloat16 is no longer used."""

    @property
    def error(self) -> float | None:
        """The mean difference over the sample."""
        return float(np.mean(self.differences)) if self.differences else None

    def check(self, batch: Batch, perturbation: Perturbation, draws: list[Draw]) -> None:
        """Compares draws in both data types, on the first of the shortest prompts and of the longest.

        Args:
            batch ([`Batch`]): The probes.
            perturbation ([`Perturbation`]): What is done to the layers.
            draws (`list[Draw]`): Draws on these probes.
        """
        draws = draws[: min(_DRAWS, batch.rows)]
        clean, depth = batch.clean, self.stack.num_layers
        length = clean.input_ids.shape[1]
        if self.dtype is None or batch.replay_problem is not None or length not in self.unchecked:
            return
        self.unchecked.remove(length)
        rng = np.random.default_rng((self.seed, length))
        rows = torch.tensor([batch.members.index(draw.probe) for draw in draws])
        ids, reference = (tensor[rows.to(tensor.device)] for tensor in (clean.input_ids, clean.logits))
        perturb = perturbation.on(draws, clean.width)
        for layer in sorted(rng.choice(depth, min(_LAYERS, depth), replace=False).tolist()):
            ends = [state[rows.to(state.device)] for state in (clean.inputs[layer], clean.states[layer + 1])]
            answer = perturb(layer, *ends)
            try:
                own, narrow = (
                    jensen_shannon(reference, self.stack.replay(clean, layer, [answer], ids, dtype)[0])
                    for dtype in (None, self.dtype)
                )
            except RuntimeError as error:  # a kernel without this data type
                if should_reduce_batch_size(error):
                    raise
                self.dtype, self.problem = None, f"a layer does not run in bfloat16 ({error!s:.120})"
                return
            self.differences += (own - narrow).abs().tolist()
        if not self.error <= TOLERANCE:  # type: ignore[operator]
            self.dtype = None
            self.problem = f"a sample of draws moved by {self.error:.2g} bits on average, more than {TOLERANCE:g}"


def wanted_dtype(stack: LayerStack, config: DiagnosisConfig, width: int) -> torch.dtype | None:
    """bfloat16 where the settings ask for it, or leave the choice and the hardware gains by it; `None` otherwise."""
    own = {parameter.dtype for parameter in stack.model.parameters()}
    if config.compute_dtype == "model" or own != {torch.float32}:
        return None
    fast = is_fast_in_bfloat16(stack.input_device) and width >= _SMALLEST_WIDTH
    return torch.bfloat16 if config.compute_dtype == "bfloat16" or fast else None
