from .callback import LayerTracerCallback
from .trainer import LayerTracerMixin, LayerTracerTrainer


__all__ = ["LayerTracerCallback", "LayerTracerMixin", "LayerTracerTrainer"]
