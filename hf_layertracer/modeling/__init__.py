"""Where a model keeps its layers: the only package that looks into a model's structure.

Nothing here knows an architecture by name. transformers' own interfaces are asked first (`get_decoder`,
`get_input_embeddings`, `get_output_embeddings`, the base class of layers), structure next, and where that is ambiguous
a forward pass decides.
"""

from .parts import EMBEDDINGS, HEAD, NORM, OTHER, ModelParts, context_length, find_parts
from .wrappers import unwrap


__all__ = ["EMBEDDINGS", "HEAD", "NORM", "OTHER", "ModelParts", "context_length", "find_parts", "unwrap"]
