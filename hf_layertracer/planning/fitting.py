"""Whether a plan fits a limit on memory, and which one would."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import LayerTracerError
from ..records import LayerPlan, ModelFacts
from ..text import gibibytes, parse_bytes
from .cost import savings_of, training_bytes, weights_bytes
from .outside import tied_decision
from .strategies import Strategy


LIMIT = "max_memory"


@dataclass(frozen=True)
class MemoryOfPlans:
    """What a limit on memory is compared with.

    Args:
        takes (`Callable[[LayerPlan], int]`): Bytes that training under a plan takes.
        what (`str`): What these bytes are, in words.
        proposal (`Callable[[LayerPlan, int], str | None]`):
            Arguments of the run with which a plan would fit a limit, if there are any.
        weights (`int`, *optional*): Bytes of the weights, where they were measured; otherwise they are counted.
    """

    takes: Callable[[LayerPlan], int]
    what: str
    proposal: Callable[[LayerPlan, int], str | None] = lambda plan, limit: None
    weights: int | None = None


def counted_memory(facts: ModelFacts) -> MemoryOfPlans:
    """What can be said without a run: weights, gradients and Adam's moments. Activations come on top.

    Args:
        facts ([`ModelFacts`]): The model.

    Returns:
        [`MemoryOfPlans`]: See [`~hf_layertracer.estimate.traced_memory`] for that of a run.
    """
    return MemoryOfPlans(lambda plan: training_bytes(facts, plan.savings), "weights, gradients and Adam's moments")


def split_limit(strategy: Strategy, options: dict[str, Any]) -> tuple[dict[str, Any], int | None]:
    """Takes the limit on memory out of the options of a strategy that has no such option: it holds for every plan.

    Args:
        strategy ([`Strategy`]): The strategy.
        options (`dict[str, Any]`): What was asked for.

    Returns:
        `tuple[dict[str, Any], int | None]`: The strategy's own options, and the limit in bytes.

    Raises:
        LayerTracerError: The limit is no amount of memory.
    """
    if options.get(LIMIT) is None or LIMIT in strategy.option_names:
        return options, None
    return {name: value for name, value in options.items() if name != LIMIT}, parse_bytes(options[LIMIT], LIMIT)


def check_fits(facts: ModelFacts, plan: LayerPlan, limit: int, memory: MemoryOfPlans) -> None:
    """Refuses a plan that takes more than a limit, with what would fit.

    Args:
        facts ([`ModelFacts`]): The model.
        plan ([`LayerPlan`]): The plan.
        limit (`int`): Bytes.
        memory ([`MemoryOfPlans`]): What is compared with the limit.

    Raises:
        LayerTracerError: It does not fit.
    """
    need = memory.takes(plan)
    if need <= limit:
        return
    said = f"This plan ({plan.strategy}) takes {gibibytes(need)} of {memory.what}, more than {gibibytes(limit)}."
    weights = weights_bytes(facts) if memory.weights is None else memory.weights
    if weights >= limit:
        raise LayerTracerError(f"{said} The weights alone take {gibibytes(weights)}: no plan fits.")
    proposal = memory.proposal(plan, limit)
    if proposal is not None:
        said += f" It would fit with {proposal}."
    smaller = _smaller(facts, plan, limit, memory)
    if smaller is not None:
        also = "" if proposal is None else " as it is"
        raise LayerTracerError(f"{said} {smaller} would fit{also}.")
    if proposal is not None:
        raise LayerTracerError(said)
    raise LayerTracerError(f"{said} Not even one layer fits: train adapters (PEFT), or take a smaller model.")


def _smaller(facts: ModelFacts, plan: LayerPlan, limit: int, memory: MemoryOfPlans) -> str | None:
    """The plan that freezes as few layers as must be at one end, in words."""
    name = "freeze-shallow" if plan.strategy == "freeze-shallow" else "freeze-deep"
    for outside in (True, False):

        def fits(frozen: int, outside: bool = outside) -> bool:
            return memory.takes(frozen_by(facts, plan, name, frozen, outside)) <= limit

        # Every layer more that is frozen takes less.
        candidates = range(1, facts.num_layers)
        place = bisect_left(candidates, True, key=fits)
        if place < len(candidates):
            frozen = candidates[place]
            also = "" if outside else " with embeddings and head frozen (train_embeddings=False, train_head=False)"
            size = gibibytes(memory.takes(frozen_by(facts, plan, name, frozen, outside)))
            return f"{name} with freeze_ratio={frozen / facts.num_layers:.3g}{also}, at {size},"
    return None


def frozen_by(facts: ModelFacts, plan: LayerPlan, strategy: str, frozen: int, outside: bool) -> LayerPlan:
    """A plan that freezes so many layers at one end.

    Embeddings, norm and head train or not as the user wished in the plan, or else follow their neighbours.

    Args:
        facts ([`ModelFacts`]): The model.
        plan ([`LayerPlan`]): A plan for it, of which all else stays.
        strategy (`str`): `"freeze-shallow"`, or any other name for the deep end.
        frozen (`int`): How many layers to freeze.
        outside (`bool`): Whether embeddings and head do so too; otherwise they are frozen.

    Returns:
        [`LayerPlan`]: The plan, with its savings.
    """
    layers = list(range(facts.num_layers))
    trained = layers[frozen:] if strategy == "freeze-shallow" else layers[: facts.num_layers - frozen]
    trains = {"embeddings": 0 in trained, "norm": layers[-1] in trained, "head": layers[-1] in trained}
    wishes = {part: plan.options.get(f"train_{part}") for part in trains}
    if facts.tied:
        both = tied_decision(trains, wishes, [])
        trains |= {"embeddings": both, "head": both}
    trains |= {part: wish for part, wish in wishes.items() if wish is not None}
    smaller = plan.model_copy(
        update={
            "trained_layers": trained,
            "frozen_layers": [layer for layer in layers if layer not in trained],
            "train_embeddings": outside and trains["embeddings"],
            "train_norm": trains["norm"],
            "train_head": outside and trains["head"],
            "patterns": [],
        }
    )
    smaller.savings = savings_of(facts, smaller)
    return smaller
