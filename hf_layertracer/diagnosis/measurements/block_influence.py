"""How far each layer turns the hidden state."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .base import Batch, Measurement, Subject


class BlockInfluence(Measurement):
    """1 - cosine similarity of each layer's input and output (ShortGPT, arXiv 2403.03853), over all prompt positions."""

    name = "block influence"

    def start(self, subject: Subject) -> int:
        self.total = np.zeros(subject.num_layers)
        return super().start(subject)

    def observe(self, batch: Batch) -> None:
        for layer, before in enumerate(batch.clean.inputs):
            after = batch.clean.states[layer + 1]
            alike = torch.cosine_similarity(before.to(after.device).float(), after.float(), dim=-1)
            self.total[layer] += float((1 - alike).flatten(1).mean(1).sum())

    def result(self) -> dict[str, Any]:
        return {"block_influence": [float(f"{value:.7g}") for value in self.total / len(self.subject.probes)]}
