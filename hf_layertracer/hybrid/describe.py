"""What is known of a hybrid once it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import safetensors
import torch
import transformers

from .. import __version__
from ..modeling import EMBEDDINGS, HEAD, NORM, ModelParts
from ..text import dtype_name
from .blueprint import Blueprint
from .donors import Donor
from .provenance import HybridRecord, LayerOrigin, Origin
from .safetensors_io import NewTensor
from .weights import Digests


def hybrid_record(
    plan: Blueprint,
    parts: ModelParts,
    groups: Mapping[int | str, Sequence[NewTensor]],
    digests: Digests,
    verified: Sequence[str],
    class_verified: str | None = None,
    notes: Sequence[str] = (),
) -> HybridRecord:
    """The record of a hybrid.

    Args:
        plan ([`Blueprint`]): What was built.
        parts ([`ModelParts`]): The structure it came out with.
        groups (`Mapping[int | str, Sequence[NewTensor]]`): The tensors of each part.
        digests ([`Digests`]): Of what was written.
        verified (`Sequence[str]`): By layer, what was compared and with which result.
        class_verified (`str`, *optional*): What was compared where the class is not the donors'.
        notes (`Sequence[str]`, *optional*): What to know before using it.

    Returns:
        [`HybridRecord`]: The record.
    """
    kinds = parts.kinds()
    mixers = {index: mixer for mixer in plan.recipe.mixers for index in mixer.layers}

    def digest(part: int | str) -> str:
        return digests.of(tensor.name for tensor in groups[part])

    def origin(donor: Donor, part: str) -> Origin | None:
        if not groups[part]:
            return None
        return Origin(
            donor=donor.public_name, revision=donor.revision, sha256=digests.of(tensor.name for tensor in groups[part])
        )

    return HybridRecord(
        architecture=type(parts.model).__name__,
        base=plan.base.public_name,
        base_revision=plan.base.revision,
        dtype=dtype_name(plan.dtype),
        remote_code=plan.native is not None and bool(plan.native.mapping.code),
        recipe=plan.recipe.to_dict(),
        layers=[
            LayerOrigin(
                donor=donor.public_name,
                revision=donor.revision,
                sha256=digest(index),
                layer=index,
                donor_layer=layer,
                kind=kinds[index],
                mixer=mixers[index].kind if index in mixers else None,
                init=mixers[index].init if index in mixers else None,
                verified=verified[index],
            )
            for index, (donor, layer) in enumerate(plan.stack)
        ],
        embeddings=origin(plan.embeddings, EMBEDDINGS),
        norm=origin(plan.norm, NORM),
        head=origin(plan.head, HEAD),
        tokenizer=plan.tokenizer.public_name,
        class_verified=class_verified,
        licenses={donor.public_name: donor.license for donor in plan.donors if donor.license is not None},
        notes=list(notes),
        versions={
            "hf_layertracer": __version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "safetensors": safetensors.__version__,
        },
    )
