"""An allocation from the measured Task Particle."""

from __future__ import annotations

import math

from ...errors import LayerTracerError
from .base import Choice, NoOptions, PlanInputs, Strategy


def choose(inputs: PlanInputs, options: NoOptions) -> Choice:
    """Freezes from the measured Task Particle on."""
    particle = inputs.measured.task_particle
    if particle.layer is None:
        raise LayerTracerError(
            "The task particle is unresolved for every probe, so there is no layer to freeze from. Use probes that the "
            "model can answer, or another strategy."
        )
    interval = ", 95 % interval {:g} to {:g}".format(*particle.interval) if particle.interval else ""
    first_frozen = math.floor(particle.layer)
    if first_frozen == 0:
        raise LayerTracerError(
            "The task particle is at layer 0: freezing from there on would leave no layer to train."
        )
    return Choice(
        set(range(first_frozen)),
        f"The model begins to execute the probes' tasks at layer {particle.layer:g} (median{interval}): layers before it "
        "train, it and all after it are frozen.",
    )


STRATEGY = Strategy(
    "task-particle",
    "Train the layers before the Task Particle, where the model begins to execute the task.",
    choose,
    needs=frozenset({"measurements"}),
)
