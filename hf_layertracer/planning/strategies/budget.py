"""An allocation that keeps a budget."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from ...checks import whole_number
from ...errors import LayerTracerError
from ...text import gibibytes, parse_bytes
from ..cost import never_frozen_elements, outside_elements, trainable_by_layer
from .base import Choice, PlanInputs, Strategy, option


@dataclass(frozen=True)
class BudgetOptions:
    """What may be spent: one of the two.

    Args:
        max_trainable_parameters (`int`, *optional*): How many parameters may train.
        max_memory (`str` or `int`, *optional*):
            How much training may take: `"24GB"`, or a number of bytes. Traced where the run is known, as in a trainer and
            on the command line; otherwise weights, gradients and Adam's moments are counted.
        measure (`str`, *optional*):
            A perturbation that was measured (`"skip"`, `"mask"`, `"mixer"`, ...) or `"context"`; by default `"skip"`, or
            the first of the report.
    """

    max_trainable_parameters: int | None = option(None, "How many parameters may train.", unit=("million", 1_000_000))
    max_memory: str | None = option(None, "What training may take: 24GB, or bytes.", unit=("GiB", 2**30))

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
    ranking = sorted(range(inputs.num_layers), key=lambda layer: -scores[layer])
    trained, limit = _within_memory(inputs, options, ranking) if options.memory else _within(inputs, options, ranking)
    beside = "; so does what lies outside the text decoder, which is never frozen and counted first"
    beside = beside if never_frozen_elements(inputs.facts) else ""
    return Choice(
        trained,
        f"The most sensitive layers ({measure}) that fit into {limit} train{beside}. The other layers are frozen.",
        outside=set(),
    )


def _within(inputs: PlanInputs, options: BudgetOptions, ranking: list[int]) -> tuple[set[int], str]:
    """The layers that fit a number of parameters, and the number in words."""
    limit = f"{options.max_trainable_parameters} trainable parameters"
    never_frozen = never_frozen_elements(inputs.facts)
    wanted = outside_elements(inputs.facts, inputs.always_trained)
    allowed = (options.max_trainable_parameters or 0) - wanted - never_frozen
    sizes = trainable_by_layer(inputs.facts)
    trained: set[int] = set()
    paid: dict[str, int] = {}  # a parameter that stands in several layers is paid for once
    for layer in ranking:
        price = sum(size for name, size in sizes[layer].items() if name not in paid)
        if price <= allowed:
            allowed -= price
            trained.add(layer)
            paid |= sizes[layer]
    if not trained:
        beside = (
            f" What lies outside the text decoder is never frozen and takes {never_frozen}." if never_frozen else ""
        )
        smallest = min(sum(sizes[layer].values()) for layer in range(inputs.num_layers))
        raise LayerTracerError(
            f"No layer fits a budget of {limit}: it leaves room for {max(allowed, 0)} parameters and the smallest layer "
            f"has {smallest}.{beside}"
        )
    return trained, limit


def _within_memory(inputs: PlanInputs, options: BudgetOptions, ranking: list[int]) -> tuple[set[int], str]:
    """The layers that fit an amount of memory, and the amount in words.

    To trace a step takes seconds, so as few as possible are: of a run of layers that all fit, the length is searched for
    by halves; and a layer is not asked about that takes at least as much as one that did not fit.
    """
    memory, takes = options.memory or 0, inputs.takes
    assert takes is not None
    limit = f"{gibibytes(memory)} of {inputs.takes_what}"
    sizes = trainable_by_layer(inputs.facts)
    trained: set[int] = set()
    left = list(ranking)

    def price(layer: int) -> int:  # a parameter that stands in several layers is paid for once
        paid = {name for other in trained for name in sizes[other]}
        return sum(size for name, size in sizes[layer].items() if name not in paid)

    while left:
        fits = bisect_left(
            range(1, len(left) + 1),
            True,
            key=lambda count: takes(Choice(trained | {*left[:count]}, "", outside=set())) > memory,
        )
        trained |= set(left[:fits])
        refused, left = left[fits : fits + 1], left[fits + 1 :]
        if refused:
            # A lower layer keeps more activations, unless one that trains lies lower still.
            lowest = min([*trained, *refused]) == refused[0]
            left = [layer for layer in left if price(layer) < price(refused[0]) or (lowest and layer > refused[0])]
    if not trained:
        least = min(takes(Choice({layer}, "", outside=set())) for layer in (0, inputs.num_layers - 1))
        raise LayerTracerError(f"No layer fits a budget of {limit}: one that trains takes {gibibytes(least)}.")
    return trained, limit


STRATEGY = Strategy(
    "budget",
    "Train the most sensitive layers that fit a number of parameters or of bytes.",
    choose,
    BudgetOptions,
    frozenset({"measurements", "budget"}),
)
