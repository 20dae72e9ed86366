"""Hangs diagnosis and plan on a `Trainer`: as a subclass, a mixin or a callback."""

from .callback import LayerTracerCallback
from .trainer import LayerTracerMixin, LayerTracerTrainer


__all__ = ["LayerTracerCallback", "LayerTracerMixin", "LayerTracerTrainer"]
