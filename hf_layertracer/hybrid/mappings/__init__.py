"""Classes of transformers that hold attention and a state-space mixer, and which models can become one of them.

Each mapping lies in a file of its own: how a configuration and a layer are said in the other class, so that the model
computes the same, and where the new mixer gets its weights from.
"""

from __future__ import annotations

from ...errors import LayerTracerError
from ..recipe import MixerReplacement
from .base import Mapping
from .granite_moe_hybrid import GRANITE_MOE_HYBRID
from .qwen3_5 import QWEN3_5


MAPPINGS: tuple[Mapping, ...] = (GRANITE_MOE_HYBRID, QWEN3_5)


def find_mapping(model_type: str, mixers: tuple[MixerReplacement, ...]) -> Mapping:
    """The mapping for a model and the mixers that it shall get.

    Args:
        model_type (`str`): The model's type, as its configuration names it.
        mixers (`tuple[MixerReplacement, ...]`): What the recipe wants replaced.

    Returns:
        [`Mapping`]: The mapping.

    Raises:
        LayerTracerError: No class of transformers holds this combination; the message says what is possible.
    """
    kinds = {mixer.kind for mixer in mixers}
    found = [mapping for mapping in MAPPINGS if model_type in mapping.donors and kinds == {mapping.kind}]
    if found:
        return found[0]
    possible = "; ".join(f"{mapping.kind} in {', '.join(mapping.donors)}" for mapping in MAPPINGS)
    wanted = " with ".join(sorted(kinds))
    raise LayerTracerError(f"No class of transformers holds {wanted} in a {model_type} model. Possible: {possible}.")


__all__ = ["MAPPINGS", "Mapping", "find_mapping"]
