"""How much the context matters at each depth (the "context mask perturbation" of arXiv 2605.11416)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..divergence import jensen_shannon
from ..replay_check import tolerance
from ..summary import summarise_context
from .base import Batch, Measurement, Subject
from .lens import blocks, lens_logits, read_lens


_DRAWS = 64


class Context(Measurement):
    """Divergence between the lens distributions with and without a part of the context: one pass for all layers."""

    name = "context"

    def start(self, subject: Subject) -> int:
        super().start(subject)
        probes, config = len(subject.probes), subject.config
        self.repeats = config.repeats or math.ceil(_DRAWS / probes)
        self.asked = np.ones(probes, dtype=bool)
        if config.repeats is None and probes > _DRAWS:
            chosen = np.random.default_rng((config.diagnosis_seed, probes)).choice(probes, _DRAWS, replace=False)
            self.asked = np.isin(np.arange(probes), chosen)
        self.values = np.full((probes, subject.num_layers + 1), np.nan)
        self.whole_prompts, self.alone = self._way_to_read()
        return 0

    def _way_to_read(self) -> tuple[bool | None, bool]:
        """Whether the lens needs whole prompts, `None` where it is not valid either way; whether it reads single depths."""
        clean = self.subject.clean
        for alone, whole in ((False, False), (False, True), (True, False), (True, True)):
            rows = 1 if alone else 2
            try:
                reading = read_lens(self.subject.stack, clean, torch.zeros(1, dtype=torch.long), rows, whole)
            except torch.OutOfMemoryError:
                raise
            except Exception:
                continue
            if reading.error <= tolerance(clean.states[-1].dtype):
                return whole, alone
        return None, True

    def observe(self, batch: Batch) -> None:
        positions = batch.clean.input_ids.shape[1]
        # Where layers take patches or padded chunks, no position of theirs is a token's.
        if self.whole_prompts is None or positions < 2 or batch.clean.states[0].shape[1] != positions:
            return
        rows = [row for row, probe in enumerate(batch.members) if self.asked[probe]]
        if not rows:
            return
        members, clean = [batch.members[row] for row in rows], batch.clean.rows(rows)
        total = np.zeros((len(rows), self.values.shape[1]))
        for repeat in range(self.repeats):
            blank = torch.stack([self._blank_positions(probe, repeat, positions) for probe in members])

            def embed(embedded: Tensor, blank: Tensor = blank) -> Tensor:
                where = blank.to(embedded.device).view(*blank.shape, *[1] * (embedded.ndim - 2))
                return torch.where(where, embedded.mean(1, keepdim=True), embedded)

            blanked = self.subject.stack.run(clean.input_ids, clean.layout, embed)
            for part, depths in blocks(*total.shape, min(batch.rows, len(total)) if self.alone else batch.rows):
                logits = [
                    lens_logits(self.subject.stack, run, part, depths, bool(self.whole_prompts))
                    for run in (clean, blanked)
                ]
                total[part, depths] += jensen_shannon(*logits).T.cpu().numpy()
        self.values[members] = total / self.repeats

    def _blank_positions(self, probe: int, repeat: int, positions: int) -> Tensor:
        """Booleans of shape `(positions,)`: which positions of a prompt lose their embedding, never the last."""
        rng = np.random.default_rng((self.subject.config.diagnosis_seed, probe, repeat))
        count = max(1, round(self.subject.config.context_mask_ratio * (positions - 1)))
        blank = torch.zeros(positions, dtype=torch.bool)
        blank[torch.from_numpy(rng.choice(positions - 1, count, replace=False))] = True
        return blank

    def result(self) -> dict[str, Any]:
        measured = self.values[np.isfinite(self.values).all(1)]
        if not len(measured):
            return {"context": None}
        return {"context": summarise_context(measured, len(measured) * self.repeats)}
