"""What to say where a model gives no gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from accelerate.utils.memory import should_reduce_batch_size

from ..errors import LayerTracerError
from .layer_stack import LayerStack


@contextmanager
def differentiating(stack: LayerStack) -> Iterator[None]:
    """Says what to do where a kernel has no derivative, or a layer hides its own from autograd."""
    try:
        yield
    except RuntimeError as error:
        if should_reduce_batch_size(error):
            raise
        raise LayerTracerError(
            f"{type(stack.model).__name__} gives no gradients of its layers ({error!s:.120}): use estimator='exact'."
        ) from error
