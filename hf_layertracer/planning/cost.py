"""What a plan costs and saves, by arithmetic on parameter counts. Nothing else knows what Adam keeps."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ..records import LayerPlan, ModelFacts, Savings
from .outside import trained_outside
from .patterns import matches_patterns


ADAM_BYTES = 8  # of a trainable parameter: two moments in float32
_ELEMENT_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


def layer_names(facts: ModelFacts, layer: int) -> dict[str, int]:
    """Full names and sizes of the parameters that are counted in one layer."""
    prefix = f"{facts.layers_path}.{layer}."
    return {prefix + name: size for name, size in facts.layers[layer].parameters.items()}


def bytes_per_element(facts: ModelFacts) -> int:
    """Bytes of one gradient element: those of the widest parameter data type that carries gradients."""
    return max((_ELEMENT_BYTES.get(dtype, 4) for dtype in facts.dtype.split("/")), default=4)


def total_elements(facts: ModelFacts) -> int:
    """Parameters of the whole model."""
    groups = (facts.embeddings, facts.norm, facts.head, facts.other, *(layer.parameters for layer in facts.layers))
    return sum(sum(group.values()) for group in groups)


def weights_bytes(facts: ModelFacts) -> int:
    """Bytes of all parameters."""
    return total_elements(facts) * bytes_per_element(facts)


def training_bytes(facts: ModelFacts, savings: Savings) -> int:
    """Bytes of weights, gradients and Adam's moments under a plan; activations come on top.

    Args:
        facts ([`ModelFacts`]): The model.
        savings ([`Savings`]): The plan's.

    Returns:
        `int`: The bytes.
    """
    return weights_bytes(facts) + savings.gradient_bytes + savings.optimizer_bytes


def trainable_by_layer(facts: ModelFacts) -> list[dict[str, int]]:
    """Full names and sizes of the parameters that could train in each layer; a shared one stands in each of its layers."""
    sizes: list[dict[str, int]] = [{} for _ in facts.layers]
    for index, layer in enumerate(facts.layers):
        for name, size in layer.parameters.items():
            if name not in layer.frozen:
                full = f"{facts.layers_path}.{index}.{name}"
                for owner in facts.shared.get(full, [index]):
                    sizes[owner][full] = size
    return sizes


def outside_elements(facts: ModelFacts, parts: Collection[str]) -> int:
    """Parameters that could train in some of `"embeddings"`, `"norm"` and `"head"`; a tied matrix is in both."""
    chosen = {*parts, "embeddings"} if facts.tied and "head" in parts else parts
    return sum(size for part in chosen for name, size in getattr(facts, part).items() if name not in facts.frozen)


def never_frozen_elements(facts: ModelFacts) -> int:
    """Parameters outside the text decoder that could train before: no plan freezes them."""
    return sum(size for name, size in facts.other.items() if name not in facts.frozen)


def savings_of(facts: ModelFacts, plan: LayerPlan) -> Savings:
    """Compares a plan with training every parameter that could train before it.

    Backwards, input gradients are needed from the lowest layer that trains on, that layer included, and in all layers
    where the embedding trains; the gradient of a weight is needed where the weight trains. So a frozen deep layer still
    costs two thirds of a trained one, a frozen shallow layer one third. Of a layer that routes to experts, all experts are
    counted, though a token goes to few: how many, the names and sizes of parameters do not tell.

    Args:
        facts ([`ModelFacts`]): The model.
        plan ([`LayerPlan`]): The plan; its own `savings` are not looked at.

    Returns:
        [`Savings`]: Counts, bytes and FLOPs.
    """
    outside = trained_outside(facts, plan)
    parts = list(_parts(facts, plan, outside))
    # The look-up of a tied matrix is no part of its own, but the gradient has to reach it.
    tied = facts.tied and not set(facts.embeddings) <= set(facts.frozen)
    planned, could = sum(p for _, p, _ in parts), sum(c for _, _, c in parts)
    total = total_elements(facts)
    element = bytes_per_element(facts)
    return Savings(
        trainable_parameters=planned,
        trainable_parameters_full=could,
        total_parameters=total,
        optimizer_bytes=planned * ADAM_BYTES,
        optimizer_bytes_full=could * ADAM_BYTES,
        gradient_bytes=planned * element,
        gradient_bytes_full=could * element,
        flops_per_token=_flops(
            [(size, trained) for size, trained, _ in parts], facts.tied and bool(outside["embeddings"])
        ),
        flops_per_token_full=_flops([(size, could_train) for size, _, could_train in parts], tied),
    )


def _parts(
    facts: ModelFacts, plan: LayerPlan, trained_parts: dict[str, dict[str, int]]
) -> Iterator[tuple[int, int, int]]:
    """From the input up: elements in matrix products, elements that train, elements that could."""
    frozen = set(facts.frozen)

    def outside(*parts: str, matrix: bool = False) -> tuple[int, int, int]:
        groups: list[dict[str, int]] = [getattr(facts, part) for part in parts]
        could = sum(size for group in groups for name, size in group.items() if name not in frozen)
        planned = sum(sum(trained_parts[part].values()) for part in parts)
        return (sum(sum(group.values()) for group in groups) if matrix else 0), planned, could

    # What lies outside the text decoder (a vision tower) is not used by text and not touched by a plan.
    never_frozen = never_frozen_elements(facts)
    other = (0, never_frozen, never_frozen)
    # Without a vocabulary there, it is a head of another kind (a classifier's): no gradient flows on from it.
    is_head = not facts.tied and not facts.head
    if not is_head:
        yield other
    # A tied matrix costs its products as the head; its other use is a look-up, as all embeddings are.
    yield (0, 0, 0) if facts.tied else outside("embeddings")
    for index, layer in enumerate(facts.layers):
        names = layer_names(facts, index)
        owners = {name: facts.shared.get(name, [index]) for name in names}
        unfrozen = {name for name in names if name.removeprefix(f"{facts.layers_path}.{index}.") not in layer.frozen}
        trained = {
            name
            for name in unfrozen
            if set(owners[name]) & set(plan.trained_layers) and matches_patterns(name, plan.patterns)
        }
        yield sum(names.values()), sum(names[name] for name in trained), sum(names[name] for name in unfrozen)
    yield outside("norm")
    if is_head:
        yield other
    else:
        yield outside("embeddings", "head", matrix=True) if facts.tied else outside("head", matrix=True)


def _flops(parts: list[tuple[int, int]], gradient_flows: bool) -> int:
    """FLOPs per token of one step: forward everywhere, weight gradients, input gradients from where they flow on."""
    flops = 0
    *below, (head, head_trained) = parts
    for size, trained in below:
        # A layer begins with its norm, which needs the input gradients of all that follows.
        gradient_flows = gradient_flows or trained > 0
        flops += 2 * size + 2 * min(size, trained) + (2 * size if gradient_flows else 0)
    return flops + 2 * head + 2 * min(head, head_trained) + (2 * head if gradient_flows else 0)
