"""Classes that hold attention and other token mixers, and which models can become one of them.

Each mapping lies in its own file: how a configuration and a layer are said in the other class, so that the model
computes the same, and where the new mixer gets its weights from.
"""

from __future__ import annotations

from ...errors import LayerTracerError
from ..recipe import MixerKind
from .base import Mapping
from .granite_moe_hybrid import GRANITE_MOE_HYBRID
from .qwen3_5 import QWEN3_5
from .remote import REMOTE


MAPPINGS: tuple[Mapping, ...] = (GRANITE_MOE_HYBRID, QWEN3_5)


def find_mapping(model_type: str, kinds: set[MixerKind], remote_code: bool) -> Mapping:
    """The mapping for a model and the kinds of mixers that it shall get; a class of transformers where there is one.

    Args:
        model_type (`str`): The model's type, as its configuration names it.
        kinds (`set[str]`): The kinds that the recipe wants.
        remote_code (`bool`): Whether a class of ours may be written beside the weights.

    Returns:
        [`Mapping`]: The mapping.

    Raises:
        LayerTracerError: No class holds this combination; the message says what is possible.
    """
    allowed = (*MAPPINGS, REMOTE) if remote_code else MAPPINGS
    for mapping in allowed:
        if model_type in mapping.donors and kinds <= set(mapping.mixers):
            return mapping
    possible = [f"{', '.join(known.mixers)} in {', '.join(known.donors)}" for known in MAPPINGS]
    if not remote_code:
        possible.append(f"with `remote_code: true`, {' and '.join(REMOTE.mixers)} in {', '.join(REMOTE.donors)}")
    raise LayerTracerError(
        f"No class {'' if remote_code else 'of transformers '}holds {' with '.join(sorted(kinds))} in a {model_type} "
        f"model. Possible: {'; '.join(possible)}."
    )


__all__ = ["MAPPINGS", "REMOTE", "Mapping", "find_mapping"]
