"""What trains outside the layers: of embeddings, final norm and head, and how that is said."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import LayerTracerError
from ..records import LayerPlan, ModelFacts
from .patterns import matches_patterns


OUTSIDE = ("embeddings", "norm", "head")
TRAINED, BY_NAME, FROZEN = "trained", "trained where names match", "frozen"
_TIED = frozenset({"embeddings", "head"})


def parts_in_full(plan: LayerPlan, tied: bool) -> frozenset[str]:
    """Which of embeddings, norm and head a plan trains in full: without patterns, or where the user asked for the part.

    Args:
        plan ([`LayerPlan`]): The plan.
        tied (`bool`): Whether embeddings and head of the model share their matrix.

    Returns:
        `frozenset[str]`: The parts; of the others, names and patterns decide.
    """
    full = {
        part
        for part in OUTSIDE
        if getattr(plan, f"train_{part}") and (not plan.patterns or plan.options.get(f"train_{part}"))
    }
    return frozenset(full | _TIED if tied and full & _TIED else full)


def planned_outside(plan: LayerPlan, tied: bool) -> dict[str, str]:
    """What a plan says of embeddings, norm and head, without looking at names: nobody has to try a stranger's patterns.

    Args:
        plan ([`LayerPlan`]): The plan.
        tied (`bool`): Whether embeddings and head of the model share their matrix.

    Returns:
        `dict[str, str]`: `TRAINED`, `FROZEN` or, where patterns choose parameters, `BY_NAME` for each part.
    """
    full = parts_in_full(plan, tied)
    return {
        part: TRAINED if part in full else BY_NAME if getattr(plan, f"train_{part}") else FROZEN for part in OUTSIDE
    }


def trains_outside(plan: LayerPlan, full: frozenset[str], part: str, name: str) -> bool:
    """Whether a parameter outside the layers trains, if it could before.

    Args:
        plan ([`LayerPlan`]): The plan.
        full (`frozenset[str]`): What [`parts_in_full`] says of it.
        part (`str`): `"embeddings"`, `"norm"` or `"head"`.
        name (`str`): The parameter's full name.

    Returns:
        `bool`: Whether it does.
    """
    return part in full or (getattr(plan, f"train_{part}") and matches_patterns(name, plan.patterns))


def trained_outside(facts: ModelFacts, plan: LayerPlan) -> dict[str, dict[str, int]]:
    """What trains of embeddings, norm and head under a plan.

    Args:
        facts ([`ModelFacts`]): The model.
        plan ([`LayerPlan`]): The plan.

    Returns:
        `dict[str, dict[str, int]]`: Of each part, full names and sizes; a tied matrix stands in the embeddings.
    """
    full, frozen = parts_in_full(plan, facts.tied), set(facts.frozen)
    return {
        part: {
            name: size
            for name, size in getattr(facts, part).items()
            if name not in frozen and trains_outside(plan, full, part, name)
        }
        for part in OUTSIDE
    }


def tied_decision(decided: Mapping[str, bool], wishes: Mapping[str, bool | None], patterns: list[str]) -> bool:
    """Whether a matrix trains that is both embedding and head: as the user wants it, else where both would.

    Args:
        decided (`dict[str, bool]`): Whether embeddings and head would train, each for itself.
        wishes (`dict[str, bool | None]`): What the user wants of them.
        patterns (`list[str]`): The plan's patterns: with these, names decide what trains of the two.

    Returns:
        `bool`: Whether it does.

    Raises:
        LayerTracerError: The user wants the one and not the other.
    """
    wanted = {wishes.get(part) for part in _TIED} - {None}
    if len(wanted) > 1:
        raise LayerTracerError(
            "Embeddings and head of this model are one tied matrix: train_embeddings and train_head cannot differ."
        )
    if wanted:
        return bool(wanted.pop())
    return (any if patterns else all)(decided[part] for part in _TIED)


def settled(facts: ModelFacts, plan: LayerPlan) -> LayerPlan:
    """A plan on a model where embeddings and head are one matrix: one made for another model may part them.

    Args:
        facts ([`ModelFacts`]): The model.
        plan ([`LayerPlan`]): The plan.

    Returns:
        [`LayerPlan`]: The plan itself where there is nothing to settle; otherwise a copy that says what happens, with the
        savings as they were.

    Raises:
        LayerTracerError: The plan was made with a wish for the one and against the other.
    """
    if not facts.tied or plan.train_embeddings == plan.train_head:
        return plan
    decided = {"embeddings": plan.train_embeddings, "head": plan.train_head}
    both = tied_decision(decided, {part: plan.options.get(f"train_{part}") for part in _TIED}, plan.patterns)
    plan = plan.model_copy(update={"train_embeddings": both, "train_head": both})
    strategy_says = plan.reason.rpartition("The embedding")[0] or f"{plan.reason} "
    plan.reason = f"{strategy_says}{outside_reason(facts, plan)}"
    return plan


def outside_reason(facts: ModelFacts, plan: LayerPlan) -> str:
    """What a plan does outside the layers, as the last sentence of its reason.

    Args:
        facts ([`ModelFacts`]): The model.
        plan ([`LayerPlan`]): The plan.

    Returns:
        `str`: The sentence, which begins with "The embedding".
    """
    trained = trained_outside(facts, plan)

    def said(*parts: str) -> str:
        names = [name for part in parts for name in getattr(facts, part)]
        training = [name for part in parts for name in trained[part]]
        planned = any(getattr(plan, f"train_{part}") for part in parts)
        if planned and names and set(names) <= set(facts.frozen):
            return "was frozen before"
        if not names or not training:
            return "trains" if planned and not names else "is frozen"
        return "trains" if len(training) == len(names) else "trains in part"

    norm = f"the final norm {said('norm')}"
    if facts.tied:
        return f"The embedding, which is also the head, {said('embeddings', 'head')}; {norm}."
    # Without a vocabulary there, a model has no such head: a classifier's own always trains.
    head = f", the head {said('head')}" if facts.head else ""
    return f"The embedding {said('embeddings')}, {norm}{head}."
