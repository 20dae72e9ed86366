"""An allocation that keeps a budget."""

from __future__ import annotations

from dataclasses import dataclass

from ...checks import whole_number
from ...errors import LayerTracerError
from ...text import gibibytes, parse_bytes
from ..cost import outside_elements, trainable_by_layer, trainable_elements_within
from .base import Choice, PlanInputs, Strategy, option


@dataclass(frozen=True)
class BudgetOptions:
    """What may be spent: one of the two.

    Args:
        max_trainable_parameters (`int`, *optional*): How many parameters may train.
        max_memory (`str` or `int`, *optional*):
            How much weights, gradients and Adam's moments may take: `"24GB"`, or a number of bytes.
        measure (`str`, *optional*):
            A perturbation that was measured (`"skip"`, `"mask"`, `"mixer"`, ...) or `"context"`; by default `"skip"`, or
            the first of the report.
    """

    max_trainable_parameters: int | None = option(None, "How many parameters may train.", unit=("million", 1_000_000))
    max_memory: str | None = option(
        None, "What weights, gradients and Adam's moments may take: 24GB, or bytes.", unit=("GiB", 2**30)
    )

    measure: str | None = option(None, "The measurement that counts: skip, mask, mixer, noise or context.")

    def __post_init__(self) -> None:
        limits = {name: getattr(self, name) for name in ("max_trainable_parameters", "max_memory")}
        if list(limits.values()).count(None) != 1:
            raise LayerTracerError(
                "The strategy 'budget' needs either max_trainable_parameters or max_memory, such as '24GB'."
            )
        whole_number("max_trainable_parameters", self.max_trainable_parameters)
        if self.max_memory is not None:
            parse_bytes(self.max_memory, "max_memory")  # refuses what is no amount

    @property
    def memory(self) -> int | None:
        """`max_memory` in bytes."""
        return None if self.max_memory is None else parse_bytes(self.max_memory)


def choose(inputs: PlanInputs, options: BudgetOptions) -> Choice:
    """Trains the most sensitive layers that fit; one that does not fit makes room for less sensitive, smaller ones."""
    measure, scores = inputs.scores(options.measure)
    if options.memory is not None:
        allowed = trainable_elements_within(inputs.facts, options.memory)
        limit = f"{gibibytes(options.memory)} for weights, gradients and Adam's moments"
    else:
        allowed, limit = (
            options.max_trainable_parameters or 0,
            f"{options.max_trainable_parameters} trainable parameters",
        )
    allowed -= outside_elements(inputs.facts, inputs.always_trained)
    sizes = trainable_by_layer(inputs.facts)
    trained: set[int] = set()
    paid: dict[str, int] = {}  # a parameter that stands in several layers is paid for once
    for layer in sorted(range(inputs.num_layers), key=lambda layer: -scores[layer]):
        price = sum(size for name, size in sizes[layer].items() if name not in paid)
        if price <= allowed:
            allowed -= price
            trained.add(layer)
            paid |= sizes[layer]
    if not trained:
        smallest = min(sum(sizes[layer].values()) for layer in range(inputs.num_layers))
        raise LayerTracerError(
            f"No layer fits a budget of {limit}: it leaves room for {max(allowed, 0)} parameters and the smallest layer "
            f"has {smallest}."
        )
    return Choice(
        trained,
        f"The most sensitive layers ({measure}) that fit into {limit} train; all else is frozen.",
        outside=set(),
    )


STRATEGY = Strategy(
    "budget",
    "Train the most sensitive layers that fit a number of parameters or of bytes.",
    choose,
    BudgetOptions,
    frozenset({"measurements", "budget"}),
)
