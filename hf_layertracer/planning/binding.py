"""Whether a report is about this model: measurements of another one say nothing about it."""

from __future__ import annotations

from ..errors import LayerTracerError
from ..records import ModelFacts


def check_binding(measured: ModelFacts, model: ModelFacts) -> list[str]:
    """Compares the model that a report is about with the one at hand.

    Adapters do not count, nor does the size of the vocabulary: tokens may have been added.

    Args:
        measured ([`ModelFacts`]): What the report says of its model.
        model ([`ModelFacts`]): The model at hand.

    Returns:
        `list[str]`: What is no mistake, but should be known: another commit, another name.

    Raises:
        LayerTracerError: It is another model; the message says in what.
    """
    for what, theirs, ours in (
        ("layers", measured.num_layers, model.num_layers),
        ("architecture", measured.architecture, model.architecture),
        ("hidden size", measured.hidden_size, model.hidden_size),
        ("shapes of the weights", measured.shapes_sha256, model.shapes_sha256),
    ):
        if theirs is not None and ours is not None and theirs != ours:
            values = "" if what.startswith("shapes") else f" ({theirs} there, {ours} here)"
            raise LayerTracerError(
                f"The report is of another model, {measured.name}: it differs in {what}{values}. Diagnose this model."
            )
    for index, (theirs, ours) in enumerate(zip(measured.base_sizes(), model.base_sizes(), strict=True)):
        if theirs != ours:
            raise LayerTracerError(
                f"The report is of another model, {measured.name}: layer {index} has {theirs} parameters there, {ours} "
                "here. Diagnose this model."
            )
    named = [facts.id for facts in (measured, model) if facts.id is not None and "/" in facts.id]
    if len(named) == 2 and named[0] != named[1]:
        return [
            f"The report was measured on {named[0]}; this model, {named[1]}, has the same shape, maybe other weights."
        ]
    revisions = (measured.revision, model.revision)
    if None not in revisions and revisions[0] != revisions[1]:
        return [
            f"The report was measured on commit {revisions[0]:.12} of {measured.name}; this model is {revisions[1]:.12}."
        ]
    return []
