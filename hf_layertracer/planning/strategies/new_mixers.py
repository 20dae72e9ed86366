"""The token mixers that replaced attention in a hybrid."""

from __future__ import annotations

import re

from ...errors import LayerTracerError
from .base import Choice, NoOptions, PlanInputs, Strategy


def choose(inputs: PlanInputs, options: NoOptions) -> Choice:
    """Trains the modules that layers without attention have and layers with attention lack."""
    modules = [{name.split(".")[0] for name in layer.parameters} for layer in inputs.facts.layers]
    attends = ["attention" in layer.kind and "linear" not in layer.kind for layer in inputs.facts.layers]
    others = {index for index, is_attention in enumerate(attends) if not is_attention}
    if not others or len(others) == inputs.num_layers:
        raise LayerTracerError(
            "The strategy 'new-mixers' is for hybrids, where some layers have attention and some another mixer."
        )
    known = set().union(*(modules[index] for index in range(inputs.num_layers) if index not in others))
    mixers = sorted(set().union(*(modules[index] for index in others)) - known)
    if not mixers:
        raise LayerTracerError("The layers without attention have no module of their own: there is no new mixer.")
    return Choice(
        others,
        f"Only what replaced attention trains: {', '.join(mixers)} in {len(others)} of {inputs.num_layers} layers.",
        [rf"\.{re.escape(name)}\." for name in mixers],
        set(),
    )


STRATEGY = Strategy(
    "new-mixers",
    "Train the token mixers that replaced attention in a hybrid.",
    choose,
    needs=frozenset({"new mixers"}),
)
