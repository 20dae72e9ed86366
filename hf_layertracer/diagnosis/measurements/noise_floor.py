"""What rounding alone does to the model's output: below it, no sensitivity means anything."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..divergence import jensen_shannon
from .base import Batch, Measurement, Subject


_PROBES = 6  # of each length at which it is measured


class NoiseFloor(Measurement):
    """The divergence between two clean passes of which the second has noise as small as rounding behind its first layer.

    It is next to nothing, unless the model is random in evaluation mode, or sorts and hashes where a rounding error
    decides (Reformer's attention). Some models are random in long prompts alone, others sort in short ones alone: the
    larger of the means over some of the shortest probes and of the longest ones is taken.
    """

    name = "noise floor"

    def start(self, subject: Subject) -> int:
        lengths = [len(probe.input_ids) for probe in subject.probes]
        self.ends = {min(lengths), max(lengths)}
        self.shortest: list[float] = []
        self.longest: list[float] = []
        return super().start(subject)

    def observe(self, batch: Batch) -> None:
        length = batch.clean.input_ids.shape[1]
        values = self.longest if length == max(self.ends) else self.shortest
        rows = min(_PROBES - len(values), len(batch.members), batch.rows) if length in self.ends else 0
        if rows <= 0:
            return
        generator = torch.Generator().manual_seed(self.subject.config.diagnosis_seed + batch.members[0])

        def round_otherwise(before: Tensor, after: Tensor) -> Tensor:
            noise = torch.randn(after.shape, generator=generator).to(after)
            return after * (1 + torch.finfo(after.dtype).eps * noise)

        logits = self.subject.stack.patch(batch.clean, 0, round_otherwise, batch.clean.input_ids[:rows])
        values += jensen_shannon(batch.clean.logits[:rows], logits).tolist()

    def result(self) -> dict[str, Any]:
        return {
            "noise_floor": float(f"{max(np.mean(values) for values in (self.shortest, self.longest) if values):.7g}")
        }
