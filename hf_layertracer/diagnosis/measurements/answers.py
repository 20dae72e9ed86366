"""How well the model answers the probes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...records import Scores
from ..score import target_scores
from ..summary import by_task
from .base import Batch, Measurement, Subject


class Answers(Measurement):
    """The probability of each probe's target, and whether it is the likeliest token."""

    name = "answers"

    def start(self, subject: Subject) -> int:
        self.log_probability = np.zeros(len(subject.probes))
        self.correct = np.zeros(len(subject.probes), dtype=bool)
        self.right_of_choices: dict[
            int, bool
        ] = {}  # of probes with choices: whether the target is the likeliest of these
        return super().start(subject)

    def observe(self, batch: Batch) -> None:
        scores = target_scores(batch.clean.logits, batch.targets)
        self.log_probability[batch.members], self.correct[batch.members] = scores
        for row, member in enumerate(batch.members):
            probe = self.subject.probes[member]
            if probe.choice_ids:
                best = int(batch.clean.logits[row, list(probe.choice_ids)].argmax())
                self.right_of_choices[member] = probe.choice_ids[best] == probe.target_id

    def result(self) -> dict[str, Any]:
        correct = self.correct
        tasks = by_task(self.subject.tasks).items()
        scores = Scores(
            accuracy=float(correct.mean()),
            mean_log_probability=float(self.log_probability.mean()),
            accuracy_by_task={task: float(correct[members].mean()) for task, members in tasks},
            probability=[float(f"{value:.7g}") for value in np.exp(self.log_probability)],
            correct=correct.tolist(),
            choice_accuracy=float(np.mean(list(self.right_of_choices.values()))) if self.right_of_choices else None,
            choice_chance=self._chance(),
        )
        return {"scores": scores}

    def _chance(self) -> float | None:
        """The accuracy over the choices that guessing gives."""
        chances = [1 / len(self.subject.probes[member].choice_ids) for member in self.right_of_choices]
        return float(np.mean(chances)) if chances else None
