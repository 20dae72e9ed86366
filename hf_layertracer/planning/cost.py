"""What a plan costs and saves, by arithmetic on parameter counts. Nothing else knows what Adam keeps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from ..records import LayerPlan, ModelFacts, Savings
from .outside import trained_outside
from .patterns import matches_patterns


ADAM_BYTES = 8  # of a trainable parameter: two moments in float32
_ELEMENT_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


def layer_names(facts: ModelFacts, layer: int) -> dict[str, int]:
    """Full names and sizes of the parameters that are counted in one layer."""
    prefix = f"{facts.layers_path}.{layer}."
    return {prefix + name: size for name, size in facts.layers[layer].parameters.items()}


def bytes_of(facts: ModelFacts, sizes: Mapping[str, int]) -> int:
    """Bytes of some parameters, or of their gradients.

    Args:
        facts ([`ModelFacts`]): The model.
        sizes (`dict[str, int]`): Full names of the parameters, and numbers of elements.

    Returns:
        `int`: The bytes; of a model of several data types in a report of an earlier version, those of the widest.
    """
    widest = max(_ELEMENT_BYTES.get(dtype, 4) for dtype in facts.dtype.split("/"))
    return round(sum(size * facts.element_bytes.get(name, widest) for name, size in sizes.items()))


def weights_bytes(facts: ModelFacts) -> int:
    """Bytes of all parameters."""
    layers = (layer_names(facts, index) for index in range(facts.num_layers))
    groups = (facts.embeddings, facts.norm, facts.head, facts.other, *layers)
    return sum(bytes_of(facts, group) for group in groups)


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
    frozen = frozen_in_layers(facts)
    return [{name: size for name, size in sizes.items() if name not in frozen} for sizes in _used_by_layer(facts)]


def _used_by_layer(facts: ModelFacts) -> list[dict[str, int]]:
    """The same of all parameters that a layer computes with."""
    sizes: list[dict[str, int]] = [{} for _ in facts.layers]
    for index in range(facts.num_layers):
        for name, size in layer_names(facts, index).items():
            for owner in facts.shared.get(name, [index]):
                sizes[owner][name] = size
    return sizes


def frozen_in_layers(facts: ModelFacts) -> set[str]:
    """Full names of the parameters in layers that were frozen before any plan."""
    return {f"{facts.layers_path}.{index}.{name}" for index, layer in enumerate(facts.layers) for name in layer.frozen}


def outside_elements(facts: ModelFacts, parts: Collection[str]) -> int:
    """Parameters that could train in some of `"embeddings"`, `"norm"` and `"head"`; a tied matrix is in both."""
    chosen = {*parts, "embeddings"} if facts.tied and "head" in parts else parts
    return sum(size for part in chosen for name, size in getattr(facts, part).items() if name not in facts.frozen)


def never_frozen_elements(facts: ModelFacts) -> int:
    """Parameters outside the text decoder that could train before: no plan freezes them."""
    return sum(_never_frozen(facts).values())


def _never_frozen(facts: ModelFacts) -> dict[str, int]:
    return {name: size for name, size in facts.other.items() if name not in facts.frozen}


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
    trained = {name: size for part in parts for name, size in part.trained.items()}
    trainable = {name: size for part in parts for name, size in part.trainable.items()}
    planned, could = sum(trained.values()), sum(trainable.values())
    return Savings(
        trainable_parameters=planned,
        trainable_parameters_full=could,
        total_parameters=facts.size,
        optimizer_bytes=planned * ADAM_BYTES,
        optimizer_bytes_full=could * ADAM_BYTES,
        gradient_bytes=bytes_of(facts, trained),
        gradient_bytes_full=bytes_of(facts, trainable),
        flops_per_token=_flops(
            [(part.products, sum(part.trained.values())) for part in parts],
            facts.tied and bool(outside["embeddings"]),
        ),
        flops_per_token_full=_flops([(part.products, sum(part.trainable.values())) for part in parts], tied),
    )


class _Part(NamedTuple):
    """Elements in matrix products, and full names and sizes of the parameters that train and that could."""

    products: int
    trained: dict[str, int]
    trainable: dict[str, int]


def _parts(facts: ModelFacts, plan: LayerPlan, trained_parts: dict[str, dict[str, int]]) -> Iterator[_Part]:
    """A model's parts from the input up."""
    frozen = set(facts.frozen)

    def outside(*parts: str, products: int = 0) -> _Part:
        sizes = {name: size for part in parts for name, size in getattr(facts, part).items()}
        could = {name: size for name, size in sizes.items() if name not in frozen}
        planned = {name: size for part in parts for name, size in trained_parts[part].items()}
        return _Part(products, planned, could)

    # What lies outside the text decoder (a vision tower) is not used by text and not touched by a plan.
    never_frozen = _never_frozen(facts)
    other = _Part(0, never_frozen, never_frozen)
    # Without a vocabulary there, it is a head of another kind (a classifier's): no gradient flows on from it.
    is_head = not facts.tied and not facts.head
    if not is_head:
        yield other
    # A tied matrix costs its products as the head; its other use is a look-up, as all embeddings are.
    yield _Part(0, {}, {}) if facts.tied else outside("embeddings")
    frozen_inside = frozen_in_layers(facts)
    # A block that stands in several layers is counted once, and multiplied with in each of them.
    for index, names in enumerate(_used_by_layer(facts)):
        unfrozen = {name: size for name, size in names.items() if name not in frozen_inside}
        trained = {
            name: size
            for name, size in unfrozen.items()
            if set(facts.shared.get(name, [index])) & set(plan.trained_layers)
            and matches_patterns(name, plan.patterns)
        }
        yield _Part(sum(names.values()), trained, unfrozen)
    yield outside("norm")
    if is_head:
        yield other
    else:
        head = sum(facts.head.values())
        # The matrix of tokens stands first among the embeddings; positions and the like are looked up alone.
        tied = next(iter(facts.embeddings.values()), 0)
        yield outside("embeddings", "head", products=head + tied) if facts.tied else outside("head", products=head)


def _flops(parts: list[tuple[int, int]], gradient_flows: bool) -> int:
    """FLOPs per token of one step: forward everywhere, weight gradients, input gradients from where they flow on."""
    flops = 0
    *below, (head, head_trained) = parts
    for size, trained in below:
        # A layer begins with its norm, which needs the input gradients of all that follows.
        gradient_flows = gradient_flows or trained > 0
        flops += 2 * size + 2 * min(size, trained) + (2 * size if gradient_flows else 0)
    return flops + 2 * head + 2 * min(head, head_trained) + (2 * head if gradient_flows else 0)
